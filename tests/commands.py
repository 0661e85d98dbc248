"""What tests of the command line say of its results."""

import csv

import numpy as np
from PIL import Image


def fails(result, code, *words):
    """Hold that a command failed with a code and one short message, without a traceback."""
    status, out, err = result
    assert (status, out) == (code, ""), err
    assert all(word in err for word in words), err
    assert "Traceback" not in err
    return True


def size_of(path):
    with Image.open(path) as picture:
        return picture.size


def pixels_of(path):
    """The pixels of a file, in [0, 1]."""
    with Image.open(path) as picture:
        return np.asarray(picture) / 255


def psnr(a, b):
    return -10 * np.log10(np.mean((a - b) ** 2))


def table(path):
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def raising(error):
    def fail(*_, **__):
        raise error

    return fail
