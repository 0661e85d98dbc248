"""What `denoising.py` denoises: three sets of images, and the noise on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from harness import LeftOutError, celeba, say
from torch import Tensor

from mfimage.config import Config
from mfimage.datasets import ImageSet, load
from mfimage.datasets.loading import Data
from mfimage.noise import parse_noise

PICTURES = {  # by the name of their function in `skimage.data`, the file in the package
    "cell": "cell.png",
    "retina": "retina.jpg",
    "hubble_deep_field": "hubble_deep_field.jpg",
    "moon": "moon.png",
    "immunohistochemistry": "ihc.png",
    "brick": "brick.png",
    "grass": "grass.png",
    "gravel": "gravel.png",
}
SIDE = 64  # pixels of a tile
MINUTE = 60.0


@dataclass(frozen=True)
class Noise:
    """y = a·Poisson(x/a) + σε, not cut to [0, 1]; its variance is a·x + σ²."""

    sigma: float
    gain: float = 0.0

    def __str__(self) -> str:
        if not self.gain:
            return f"{self.sigma:g}"
        peak = round(1 / self.gain)
        return f"poisson-gaussian:{peak},{self.sigma:g}" if self.sigma else f"poisson:{peak}"

    def add(self, x: Tensor) -> Tensor:
        """Add it to all images (B, C, H, W) of a set, always the same."""
        generator = torch.Generator().manual_seed(round(1000 * self.sigma) + round(1e6 * self.gain))
        return parse_noise(str(self)).add(x, generator)[0]


GAUSSIAN = tuple(Noise(sigma) for sigma in (0.05, 0.1, 0.2, 0.3, 0.5))
PHOTONS = (Noise(0.0, 1 / 30), Noise(0.05, 1 / 30))


@dataclass(frozen=True)
class Task:
    """A set: images to learn from, unseen clean ones, and how ours is trained."""

    name: str
    training: ImageSet
    clean: Tensor  # (B, C, H, W)
    config: Config
    budget: float  # CPU seconds asked of our training
    watching: ImageSet | None = None  # in place of some of those to learn from

    @property
    def data(self) -> Data:
        """What our training is given."""
        if self.watching is None:
            return self.training
        return {"train": self.training, "valid": self.watching, "test": load(self.clean, "all")}


def clothes(quick: bool) -> Task:
    """Fashion-MNIST: 60,000 images to learn from, the first 1,000 test images."""
    name = "fashion-mini" if quick else "fashion-mnist"
    clean = load(name, "test").batch(slice(0, 20 if quick else 1000))
    return Task(name, load(name, "train"), clean, Config(dim=32), 30 * MINUTE)


def faces(quick: bool) -> Task:
    """CelebA 64 × 64: 15,979 faces of the training split, the first 500 of the validation split."""
    found = celeba()
    if found is None:
        raise LeftOutError("there is no CelebA in $MFIMAGE_SHARED/data")
    clean = found[1].batch(slice(0, 20 if quick else 500))
    return Task("celeba", found[0], clean, Config(dim=64), 60 * MINUTE)


def science(quick: bool) -> Task:
    """Grey tiles 64 × 64 of eight pictures that scikit-image brings along: cells, a retina, stars, stones.

    Training tiles lie in the left three eighths of each picture, up to 400 of them, and overlap; those that
    watch the error in the eighth beside, up to 25; test tiles in the right half, up to 32, side by side, in
    mixed order. Even ones (deviation below .01: black sky) are left out.
    """
    training: list[np.ndarray] = []
    watching: list[np.ndarray] = []
    unseen: list[np.ndarray] = []
    for name in PICTURES:
        scene = picture(name)
        middle = scene.shape[1] // 2
        edge = middle * 3 // 4
        training += _tiles(scene[:, :edge], 16, 20 if quick else 400)
        watching += _tiles(scene[:, edge:middle], 16, 2 if quick else 25)
        unseen += _tiles(scene[:, middle:], SIDE, 3 if quick else 32)
    mixed = np.random.default_rng(0).permutation(len(unseen))
    images, watched, test = (
        load(np.stack(tiles)[..., None], "all") for tiles in (training, watching, [unseen[i] for i in mixed])
    )
    return Task("science", images, test.batch(slice(None)), Config(dim=64), 30 * MINUTE, watched)


def picture(name: str) -> np.ndarray:
    """Read a picture (H, W) in [0, 1], float32; never by download."""
    import skimage.data
    from skimage.color import rgb2gray

    if not (Path(skimage.data.__file__).parent / PICTURES[name]).exists():
        raise LeftOutError(f"scikit-image's {name} is not in the installed package")
    scene = getattr(skimage.data, name)()
    grey = rgb2gray(scene) if scene.ndim == 3 else scene / 255
    return grey.astype(np.float32)


def _tiles(picture: np.ndarray, step: int, most: int) -> list[np.ndarray]:
    """Cut tiles out, so many at most, spread evenly."""
    height, width = picture.shape
    places = [(y, x) for y in range(0, height - SIDE + 1, step) for x in range(0, width - SIDE + 1, step)]
    tiles = [picture[y : y + SIDE, x : x + SIDE] for y, x in places]
    tiles = [tile for tile in tiles if tile.std() >= 0.01]
    chosen = np.linspace(0, len(tiles) - 1, min(most, len(tiles))).round().astype(int)
    return [tiles[i] for i in chosen]


def tiny(config: Config) -> Config:
    """Settings of a model that is trained in seconds, for a look."""
    model = {"width": 4, "hidden": 16, "noise_width": 2}
    return config.with_(steps=20, density_steps=5, warmup=2, every=20, validation=20, model=model)


def tasks(names: Sequence[str], quick: bool, seconds: float | None) -> Iterator[Task]:
    """Make the sets that can be had, trained for so many seconds, or those of each; says which cannot."""
    for name in names:
        try:
            task = SETS[name](quick)
        except LeftOutError as reason:
            say(f"{name}: left out: {reason}")
            continue
        config = tiny(task.config) if quick else task.config.with_(time=seconds or task.budget)
        yield replace(task, config=config)


SETS: dict[str, Callable[[bool], Task]] = {"fashion-mnist": clothes, "celeba": faces, "science": science}
