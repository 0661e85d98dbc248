"""How well a detector finds defects, and where, on images laid out as those of MVTec AD are, for anomalib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mfimage.config import Reading
from mfimage.datasets import Dataset, ImageSet, Skipped, load_files
from mfimage.datasets.decode import Preparation, open_picture
from mfimage.errors import DataError
from mfimage.eval.localisation import Detection, above, detections, means
from mfimage.eval.numbers import Interval
from mfimage.eval.table import Cell, Column, Row, Table
from mfimage.files import write_json
from mfimage.ood.detector import Detector

GOOD = "good"  # the folder of images without defects
_WORDS = {
    "image_auroc": "image AUROC", "image_auroc_by_map": "of the map's peak", "pixel_auroc": "pixel AUROC",
    "aupro": "AUPRO",
}  # fmt: skip
_BELOW = (
    "Each kind of defect against the good images. AUPRO: mean overlap with each defect up to 30 % of false "
    "alarms, 1 is best and 0.15 chance. In brackets 95 % intervals, by drawing the images anew."
)


@dataclass(frozen=True, eq=False)
class DefectSet:
    """Test images of a model's shape: good ones, and those with defects, with masks, by kind."""

    good: Dataset
    kinds: Mapping[str, tuple[Dataset, Tensor]]  # masks are (N, H, W) bool, True in defects
    skipped: Sequence[Skipped] = ()


@dataclass(frozen=True)
class DefectReport:
    """How well defects are found, by kind and in the mean, with 95 % intervals.

    Measures are those of `localisation.MEASURES`, and the image AUROC of the largest value of each map.
    """

    kinds: Mapping[str, Mapping[str, Interval]]
    mean: Mapping[str, Interval]
    counts: Mapping[str, int]  # images of each kind, and good ones

    def as_json(self) -> dict[str, Any]:
        """Return what json.dump takes: of each measure its value and the ends of its interval."""
        kinds = {name: {**_plain(found), "n": self.counts[name]} for name, found in self.kinds.items()}
        return {"kinds": kinds, "mean": _plain(self.mean), "n_good": self.counts[GOOD]}

    def save(self, path: Path) -> Path:
        """Write it as JSON, whole or not at all; return the path."""
        return write_json(path, self.as_json())

    def table(self) -> Table:
        """Put it into a table, a row for each kind of defect."""
        rows = [
            Row(name, [*_cells(found), Cell(f"{self.counts[name]:,}")]) for name, found in self.kinds.items()
        ]
        columns = [Column(""), *map(Column, _WORDS.values()), Column("N")]
        rows.append(Row("mean", [*_cells(self.mean), Cell("")]))
        return Table(columns, rows, f"{_BELOW} Good images: {self.counts[GOOD]:,}.")


def _plain(found: Mapping[str, Interval]) -> dict[str, Any]:
    return {
        name: {"value": one.value, "interval": None if one.ends is None else list(one.ends)}
        for name, one in found.items()
    }


def _cells(found: Mapping[str, Interval]) -> list[Cell]:
    return [Cell("{:.3f} ({:.3f}–{:.3f})".format(*found[name])) for name in _WORDS]


def evaluate_defects(detector: Detector, images: DefectSet, seed: int = 0) -> DefectReport:
    """Measure how well a detector finds defects: images by its score, pixels by its map.

    Args:
        detector: Calibrated with maps, on none of these images.
        images: Good ones and ones with defects.
        seed: Of the intervals.

    Raises:
        UsageError: If the detector is not calibrated, or without maps.
        DataError: If images are not of the model's shape.
    """
    parts = [images.good, *(part for part, _ in images.kinds.values())]
    found = [detector.score(part, maps=True) for part in parts]
    scores = torch.cat([one.scores for one in found])
    maps = torch.stack([place.heat for one in found for place in one.places])
    each = detections(scores, maps, {kind: masks for kind, (_, masks) in images.kinds.items()})
    peaks = maps.flatten(1).amax(1).split([len(part) for part in parts])
    pairs = {
        kind: (one, replace(one, above=above(peaks[0], peak)))
        for (kind, one), peak in zip(each.items(), peaks[1:], strict=True)
    }
    return DefectReport(
        {kind: _measured([pair], seed) for kind, pair in pairs.items()},
        _measured(list(pairs.values()), seed),
        {GOOD: len(images.good), **{kind: len(part) for kind, (part, _) in images.kinds.items()}},
    )


def _measured(pairs: Sequence[tuple[Detection, Detection]], seed: int) -> dict[str, Interval]:
    """Means over kinds of defects, each by the detector's score and by the peak of its map."""
    by_score, by_peak = (means([kinds], seed) for kinds in zip(*pairs, strict=True))
    return {**by_score, "image_auroc_by_map": by_peak["image_auroc"]}


def is_defect_root(path: str | Path) -> bool:
    """Whether a folder is laid out as those of MVTec AD are: it has train/good and test/good."""
    return all((Path(path) / split / GOOD).is_dir() for split in ("train", "test"))


def read_defects(
    folder: Path, masks: Path | None, shape: tuple[int, ...], reading: Reading = Reading()
) -> DefectSet:
    """Read good images, images with defects and their masks, in a model's shape (C, H, W).

    Args:
        folder: Holds `test`, or is it: in it `good`, and a folder for each kind of defect.
        masks: Holds a folder for each kind, in which the mask of NAME.png is NAME_mask.png or NAME.png, white
            in defects; None: `ground_truth` beside `test`.
        shape: Images, and masks with them, are scaled to cover H × W and cut to it.
        reading: How files are read.

    Raises:
        DataError: If there are no such folders, a mask is missing, has not the size of its image or marks
            nothing: the message names the file.
    """
    test = folder / "test" if (folder / "test").is_dir() else folder
    masks = masks or test.parent / "ground_truth"
    for place, what in ((test / GOOD, "images without defects"), (masks, "masks of defects")):
        if not place.is_dir():
            raise DataError(
                f"{place}: no such folder of {what}: a set has test/{GOOD}, test/DEFECT, ground_truth/DEFECT"
            )
    names = sorted(one.name for one in test.iterdir() if one.is_dir() and one.name != GOOD)
    if not (names := [name for name in names if not name.startswith(".")]):
        raise DataError(f"{test}: holds no folder of images with defects beside {GOOD}")
    good, found = _load(test / GOOD, shape, reading), {}
    for name in names:
        images = _load(test / name, shape, reading)
        marked = [_mask(Path(path), masks / name, shape, reading) for path in images.paths]
        found[name] = images, torch.from_numpy(np.stack(marked))
    every = [good, *(images for images, _ in found.values())]
    return DefectSet(good, found, [one for images in every for one in images.skipped])


def _load(folder: Path, shape: tuple[int, ...], reading: Reading) -> ImageSet:
    return load_files([folder], (shape[1], shape[2]), shape[0], reading=reading)


def _mask(path: Path, folder: Path, shape: tuple[int, ...], reading: Reading) -> np.ndarray:
    """Read the mask of an image, (H, W) bool: True where half of a pixel is marked, else where most is."""
    places = [folder / f"{path.stem}{ending}.png" for ending in ("_mask", "")]
    mask = next((place for place in places if place.is_file()), None)
    if mask is None:
        raise DataError(f"{path}: has no mask: neither {places[0]} nor {places[1].name} is there")
    with open_picture(path, str(path), reading.max_pixels) as one, open_picture(mask, str(mask)) as other:
        if one.size != other.size:
            raise DataError(
                f"{mask}: {other.height} × {other.width} pixels, but {path} has {one.height} × {one.width}"
            )
    values = Preparation((shape[1], shape[2]), 1, reading.max_pixels)(mask, str(mask))[..., 0]
    white = 255 if values.dtype == np.uint8 else 1.0
    if not (most := float(values.max()) / white) > 0:
        raise DataError(f"{mask}: marks nothing within the part of {path} that the model sees")
    return np.asarray(values / white >= min(0.5, most))
