"""Images in: from files, folders, zips, arrays and named sets to float32 batches (B, C, H, W) in [0, 1]."""

from __future__ import annotations

from mfimage.datasets.convert import to_batch
from mfimage.datasets.decode import IMAGE_SUFFIXES
from mfimage.datasets.folders import FOLDERS
from mfimage.datasets.index import iter_files
from mfimage.datasets.loading import load, load_files, load_for_training
from mfimage.datasets.named import NAMED
from mfimage.datasets.pictures import gaussian_noise, save_gif, save_png, save_pngs, sheet
from mfimage.datasets.points import Points, load_points
from mfimage.datasets.sets import Dataset, ImageSet
from mfimage.datasets.stored_set import StoredSet
from mfimage.errors import Skipped

__all__ = [
    "FOLDERS",
    "IMAGE_SUFFIXES",
    "NAMED",
    "Dataset",
    "ImageSet",
    "Points",
    "Skipped",
    "StoredSet",
    "gaussian_noise",
    "iter_files",
    "load",
    "load_files",
    "load_for_training",
    "load_points",
    "save_gif",
    "save_png",
    "save_pngs",
    "sheet",
    "to_batch",
]
