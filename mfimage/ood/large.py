"""Pictures larger than a model: judged in overlapping windows of its size, with one map for the whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

import torch

from mfimage.config import Reading
from mfimage.datasets import load_files
from mfimage.datasets.convert import ImageLike, to_batch
from mfimage.datasets.index import list_inputs
from mfimage.datasets.listing import require_some
from mfimage.datasets.sets import BadFiles
from mfimage.errors import DataError, Skipped
from mfimage.ood.detector import Detector
from mfimage.ood.verdicts import Verdicts
from mfimage.tiles import OVERLAP, in_tiles, starts


def score_large(detector: Detector, picture: ImageLike) -> Verdicts:
    """Score a clean picture at least as high and wide as the model's images, one row for the whole.

    Its score, p-value, verdict and statistics are those of its strangest window, so that α is a share of
    familiar windows; its place is that of one map, in which windows are joined as `in_tiles` does.

    Args:
        detector: Calibrated with maps.
        picture: A path, PIL image, array (H, W) or (H, W, C), or tensor (C, H, W).

    Raises:
        DataError: If it cannot be read, is several, or is smaller than the model's images.
        UsageError: If the detector is not calibrated, or without maps.
    """
    model, size = detector.model, (detector.model.shape[1], detector.model.shape[2])
    x, _ = to_batch(picture, channels=model.shape[0])
    name, (height, width) = picture if isinstance(picture, str | Path) else "picture", x.shape[-2:]
    if len(x) != 1:
        raise DataError(f"{name}: {len(x)} pictures: give one at a time")
    if height < size[0] or width < size[1]:
        raise DataError(
            f"{name}: {height} × {width} pixels are less than a window of {size[0]} × {size[1]}: score it "
            "without tiles, which scales it"
        )
    x = x.to(model.device)
    looked = in_tiles(detector.look, x, size, batch_size=detector.batch_size).cpu()
    corners = product(starts(height, size[0], OVERLAP), starts(width, size[1], OVERLAP))
    found = detector.score(torch.stack([x[0, :, a : a + size[0], b : b + size[1]] for a, b in corners]))
    strangest = found.subset(found.scores.argmax()[None])
    return replace(strangest, places=detector.calibration.places(looked))


@dataclass
class LargePictures:
    """Files of pictures that are scored one by one; those that cannot be are noted in `skipped`."""

    paths: Sequence[str]
    reading: Reading = Reading()
    skipped: list[Skipped] = field(default_factory=list)

    @classmethod
    def listed(cls, inputs: Sequence[str], reading: Reading = Reading()) -> LargePictures:
        """List files, folders and patterns; DataError if there are no images."""
        paths, unread = list_inputs(inputs)
        require_some(paths, " + ".join(inputs), unread)
        return cls([str(path) for path in paths], reading, list(unread))

    def scored(self, detector: Detector) -> Iterator[tuple[str, Verdicts]]:
        """Give each path with its verdict, see `score_large`; DataError in the end if too many are bad."""
        bad, good = BadFiles(self.reading.max_bad), 0
        for path in self.paths:
            try:
                read = load_files([path], None, detector.model.shape[0], reading=self.reading)
                found = score_large(detector, read[0])
            except DataError as error:
                self.skipped.append(bad.add(path, error))
            else:
                good += 1
                yield path, found
        bad.check(good)
