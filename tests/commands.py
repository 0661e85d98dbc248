"""What tests of the command line say of its results."""

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


def raising(error):
    def fail(*_, **__):
        raise error

    return fail
