"""Tiles of three textures, good ones and ones with defects, and the folders in which others can use them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from defects.drawing import KINDS, Place, defect
from denoisers.sets import picture
from PIL import Image
from torch import Tensor

TEXTURES = ("brick", "grass", "gravel")
OTHERS = ("immunohistochemistry", "cell", "retina", "moon")  # textures of defects, beside those of the others
SIDE = 64


@dataclass(frozen=True)
class Sizes:
    """How many tiles of a texture."""

    training: int = 2000
    held: int = 2400
    good: int = 100
    each: int = 40  # of each kind of defect


QUICK = Sizes(60, 60, 12, 4)


@dataclass(frozen=True)
class Task:
    """A texture's tiles (N, 1, 64, 64), float32 in [0, 1] as of 8 bits.

    The left half of the picture, 512 × 512, is what a method may know: `held` are from the middle quarter of
    its rows, `training` from above and below, at random places, half of them mirrored. The right half is
    what it is tested on: `good` tiles, and others with defects and their masks (N, 64, 64), by kind. No pixel
    is in two of these three parts, but tiles of one part overlap.
    """

    name: str
    training: Tensor
    held: Tensor
    good: Tensor
    defects: dict[str, tuple[Tensor, Tensor]]

    @property
    def familiar(self) -> Tensor:
        """All that a method may know."""
        return torch.cat([self.training, self.held])

    @property
    def test(self) -> Tensor:
        """The good tiles, and those with defects, one kind after the other."""
        return torch.cat([self.good, *(images for images, _ in self.defects.values())])


def task(name: str, sizes: Sizes) -> Task:
    """Cut the tiles of a texture and draw the defects, always the same; of fewer, the first ones."""
    scene, number = picture(name), TEXTURES.index(name)
    half, quarter = scene.shape[1] // 2, scene.shape[0] // 4
    known, unseen = scene[:, :half], scene[:, half:]
    draw = [np.random.default_rng([number, part]) for part in range(3)]
    above, below = known[: 3 * quarter // 2], known[5 * quarter // 2 :]
    training = [(above, below)[draw[0].integers(2)] for _ in range(sizes.training)]
    held = [known[3 * quarter // 2 : 5 * quarter // 2]] * sizes.held
    others = [picture(other) for other in (*TEXTURES, *OTHERS) if other != name]
    return Task(
        name,
        _stack([_mirrored(_anywhere(part, draw[0]), draw[0]) for part in training]),
        _stack([_mirrored(_anywhere(part, draw[1]), draw[1]) for part in held]),
        _stack([_anywhere(unseen, draw[2]) for _ in range(sizes.good)]),
        {kind: _with_defects(kind, unseen, others, number, sizes.each) for kind in KINDS},
    )


def _with_defects(
    kind: str, scene: np.ndarray, others: list[np.ndarray], number: int, count: int
) -> tuple[Tensor, Tensor]:
    """Tiles with a defect of a kind, and their masks; each has a stream of random numbers of its own."""
    found = []
    for i in range(count):
        draw = np.random.default_rng([number, 3 + list(KINDS).index(kind), i])
        row, column = (int(draw.integers(n - SIDE + 1)) for n in scene.shape)
        found.append(defect(kind, Place(scene, row, column, SIDE, others), draw))
    images, masks = zip(*found, strict=True)
    return _stack(list(images)), torch.from_numpy(np.stack(masks))


def _anywhere(scene: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    row, column = (int(draw.integers(n - SIDE + 1)) for n in scene.shape)
    return scene[row : row + SIDE, column : column + SIDE]


def _mirrored(tile: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    return tile[:, ::-1] if draw.random() < 0.5 else tile


def _stack(tiles: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(tiles)).unsqueeze(1)


def write_folder(one: Task, folder: Path) -> None:
    """Write a texture as MVTec AD is laid out, and as anomalib reads it.

    TEXTURE/train/good, validation/good (those held out), test/good, test/DEFECT, all as NNN.png, and
    ground_truth/DEFECT/NNN_mask.png, 255 in the defect.
    """
    root = folder / one.name
    for part, images in (
        ("train/good", one.training),
        ("validation/good", one.held),
        ("test/good", one.good),
        *((f"test/{kind}", images) for kind, (images, _) in one.defects.items()),
    ):
        _write(root / part, images[:, 0], "")
    for kind, (_, masks) in one.defects.items():
        _write(root / "ground_truth" / kind, masks.float(), "_mask")


def _write(folder: Path, images: Tensor, ending: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images.mul(255).round().byte().numpy()):
        Image.fromarray(image).save(folder / f"{i:03d}{ending}.png")
