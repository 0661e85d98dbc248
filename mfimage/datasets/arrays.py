"""Images in the files of NumPy's arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mfimage.datasets.decode import data_errors
from mfimage.datasets.pixels import Pixels
from mfimage.errors import DataError
from mfimage.files import open_npz


def read_arrays(path: Path) -> tuple[Pixels, np.ndarray | None]:
    """Images as they are stored (memory-mapped from .npy), and labels or None, of an array file; no pickle.

    In an .npz the images are the array `images`, else `arr_0`, else the only one with 3 or 4 dimensions;
    `labels` are the labels. DataError if the file is damaged or no array of images can be told.
    """
    with data_errors(str(path), "cannot be read as arrays (pickles are never loaded)"):
        if path.suffix.lower() == ".npy":
            return np.load(path, mmap_mode="r", allow_pickle=False), None
        with open_npz(path) as arrays:
            for key in ("images", "arr_0"):
                if key in arrays:
                    return arrays[key], arrays.get("labels")
            likely = [array for key in arrays.files if (array := arrays[key]).ndim in (3, 4)]
            if len(likely) != 1:
                names = ", ".join(arrays.files)
                raise DataError(f"{path}: name the array of images `images`; there are {names}")
            return likely[0], arrays.get("labels")
