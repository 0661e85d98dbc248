"""Damaged images of every format end in pixels or in a DataError, whatever the damage.

MFIMAGE_FUZZ=10000 takes so many inputs instead of some hundreds.
"""

import os
import random
import warnings
from contextlib import suppress

import numpy as np
import pytest
from hostile import damaged
from imagefiles import content
from PIL import Image

from mfimage.datasets.decode import decode
from mfimage.errors import DataError

COUNT = int(os.environ.get("MFIMAGE_FUZZ", "600"))
KINDS = {
    "PNG": {}, "JPEG": {"quality": 60}, "WEBP": {}, "BMP": {}, "GIF": {}, "TIFF": {"compression": "tiff_lzw"},
}  # fmt: skip
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F")


def seeds():
    """One small file of every format in every mode that it can hold."""
    values = np.random.default_rng(0).integers(0, 256, (11, 13, 3), dtype=np.uint8)
    for kind, how in KINDS.items():
        for mode in MODES:
            picture = Image.fromarray(values).convert("L" if mode == "I;16" else mode)
            with suppress(OSError, ValueError, KeyError):  # a format that has no such mode
                yield content(picture.convert(mode), kind, **how)


def decoded(data):
    """Pixels, or the message of the error."""
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")  # Pillow's, of damaged metadata
        try:
            return decode(data, "the.file", max_pixels=100_000), ""
        except DataError as error:
            return None, str(error)


@pytest.mark.parametrize("early", [False, True], ids=["anywhere", "in the header"])
def test_nothing_but_pixels_or_a_data_error_comes_out(early):
    dice, files = random.Random(int(early)), list(seeds())
    assert len(files) > 25
    good = 0
    for turn in range(COUNT // 2):
        data = files[turn % len(files)]
        data = damaged(data[:60], dice) + data[60:] if early else damaged(data, dice)
        pixels, message = decoded(data)
        if pixels is None:
            assert message.startswith("the.file: ")
        else:
            good += 1
            assert pixels.ndim == 3
            assert pixels.shape[2] in (1, 3)
            assert pixels.shape[0] * pixels.shape[1] <= 100_000
            assert pixels.dtype in (np.uint8, np.float32)
            assert np.isfinite(pixels).all()
    assert 0 < good < COUNT // 2
