"""What a training decides from the data it gets, and why: the dimension, mirroring, shifts, its time."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from mfimage.algorithms import ALGORITHMS
from mfimage.config import Config
from mfimage.console import percent
from mfimage.datasets.sets import Dataset
from mfimage.errors import DataError, UsageError
from mfimage.model_config import MOST_CLASSES
from mfimage.models.subspace import pca_rows, principal_components

LEFT = 0.12  # share of the variance of images held out that d principal components may leave
LEFT_OF_VECTORS = 0.05
LEAST, MOST = 8, 64  # dimensions that are chosen for images
IMAGES_A_DIMENSION = 20  # at least
SEEN = 2000  # images held out that decide
EXACT_FEATURES = 1024  # above it approximate principal components decide: seconds instead of minutes
FEW = 5000  # images, below which they are shifted
MIRROR_COST = 0.025  # of the error of principal components, that few images may pay to be twice as many
DROPOUT = {True: 0.3, False: 0.0}  # of the dense networks, for few images and for more


def decide(training: Dataset, held_out: Dataset, config: Config) -> tuple[Config, list[str]]:
    """Decide from the images to learn from and those held out what a configuration leaves open.

    Returns:
        The settled configuration, and a sentence for everything that was decided from the data.
    """
    steps, count = config.steps, len(training)
    if steps is None:
        config = replace(config, time=config.seconds)
    elif config.density_steps is None:
        config = replace(config, density_steps=steps // 2)
    said: list[str] = []
    closed = all(phase.closed for phase in ALGORITHMS[config.algorithm].phases)
    if len(training.shape) < 3 or training.theta is not None or closed:  # where another image would be wrong
        config = replace(config, flip=bool(config.flip), shift=config.shift or 0.0)
    if config.dim is None or config.flip is None:
        config, found = _from_components(training, held_out, config)
        said += found
    if config.weight_decay is None:
        config = replace(config, weight_decay=weight_decay(count) if len(training.shape) == 3 else 0.05)
    if len(training.shape) == 3 and "dropout" not in config.model:
        config = replace(config, model={**config.model, "dropout": DROPOUT[count < FEW]})
    if config.shift is None:
        config = replace(config, shift=augmentation(count))
        if config.shift:
            pixels = "a pixel" if config.shift == 1 else f"{config.shift:g} pixels"
            said.append(f"{count:,} images are few: shifted by up to {pixels} in training")
    return config, said


def classes_of(data: Dataset, config: Config) -> tuple[str, ...]:
    """Name the classes that are to be learned, none if none are.

    Raises:
        UsageError: The algorithm does not learn classes.
        DataError: The classes of the images are not known, or are too many or too few.
    """
    if not config.classes:
        return ()
    learned = any(phase.name == "classes" for phase in ALGORITHMS[config.algorithm].phases)
    if not learned or data.theta is not None:
        raise UsageError(f"classes are not learned by {config.algorithm}, or beside parameters θ")
    if data.labels is None:
        raise DataError(
            f"{data.name}: the class of each image is not known: put the images of each class into a folder "
            "of its name, or give labels"
        )
    least, most = int(data.labels.min()), int(data.labels.max())
    names = data.classes or tuple(map(str, range(most + 1)))
    if least < 0 or most >= len(names):
        raise DataError(f"{data.name}: class indices {least} … {most} are not those of {len(names)} classes")
    if not 2 <= len(names) <= MOST_CLASSES:
        raise DataError(f"{data.name}: {len(names)} classes: 2 … {MOST_CLASSES:,} can be learned")
    return names


def weight_decay(count: int) -> float:
    """Return how much AdamW pulls the weights to zero for so many images: 0.4 up to 1,500, then less."""
    return round(0.4 * min(1.0, (1500 / count) ** (1 / 3)), 3)


def augmentation(count: int) -> float:
    """Return by how many pixels so many images are shifted at random in training, at most."""
    return 1.0 if count < FEW else 0.0


def _from_components(training: Dataset, held_out: Dataset, config: Config) -> tuple[Config, list[str]]:
    """Decide d and mirroring by what principal components leave of images held out."""
    if ALGORITHMS[config.algorithm].kind == "sphere":
        return replace(config, dim=math.prod(training.shape) - 1, flip=bool(config.flip)), []
    features = math.prod(training.shape)
    most = min(config.dim or MOST, len(training) - 1, features - 1)
    x, y = training.batch(pca_rows(len(training), features, most)), held_out.batch(slice(SEEN))
    plain = mirrored = _left_over(x, y, most)
    if config.flip is not False:
        mirrored = _left_over(torch.cat([x, x.flip(3)]), y, most)
    said = []
    if (flip := config.flip) is None:
        at = config.dim or choose_dim(plain, len(training))[0]
        at = min(at, most)
        change = float(mirrored[at] / plain[at] - 1) if plain[at] > 0 else 0.0
        flip = change < 0 or (change <= MIRROR_COST and len(training) < FEW)
        said.append(_of_mirroring(flip, change, at, len(training)))
    dim = config.dim
    if dim is None:
        chosen = mirrored if flip else plain
        images = len(training.shape) == 3
        dim, why = choose_dim(chosen, len(training)) if images else _dim_of_vectors(chosen)
        said.append(why)
    return replace(config, dim=dim, flip=flip), said


def _of_mirroring(flip: bool, change: float, dim: int, count: int) -> str:
    what = "does not help: off"
    if flip:
        what = "helps: on" if change < 0 else f"costs little, and {count:,} images are few: on"
    how = f"{percent(abs(change))} {'less' if change < 0 else 'more'}"
    return f"mirroring {what} (with mirror images {dim} principal components leave {how} of images held out)"


def _left_over(x: Tensor, y: Tensor, most: int) -> Tensor:
    """Return the mean squared error of y by 0, 1, …, `most` principal components of x."""
    mean, basis = principal_components(x.flatten(1), most, exact=EXACT_FEATURES)
    centred = y.flatten(1) - mean
    energy = (centred @ basis).double().square().mean(0)
    total = centred.double().square().sum(1).mean()
    return torch.cat([total[None], total - energy.cumsum(0)]).clamp_min(0)


def choose_dim(errors: Tensor, count: int) -> tuple[int, str]:
    """Choose d for so many images, by what 0, 1, … principal components leave of those held out; say why.

    The fewest that leave at most 12 % of the variance, but 8 at least, and at most 64 and one for every 20
    images.
    """
    left = errors / errors[0].clamp_min(1e-12)
    enough = _fewest(left, LEFT)
    most = max(1, min(MOST, count // IMAGES_A_DIMENSION, len(errors) - 1))
    dim = max(min(enough, most), min(LEAST, most))
    leave = f"{dim} principal components leave {percent(float(left[dim]))} of the variance of images held out"
    if dim == enough:
        why = f"the fewest below {percent(LEFT)}"
    elif dim == most:
        why = f"the most that is chosen for {count:,} images" if most < MOST else "the most that is chosen"
    else:
        why = "the least that is chosen"
    return dim, f"d = {dim}: {leave}, {why}"


def _dim_of_vectors(errors: Tensor) -> tuple[int, str]:
    left = errors / errors[0].clamp_min(1e-12)
    dim = max(1, min(_fewest(left, LEFT_OF_VECTORS), len(errors) - 1))
    leave = f"{dim} principal components leave {percent(float(left[dim]))} of the variance held out"
    return dim, f"d = {dim}: {leave}"


def _fewest(left: Tensor, share: float) -> int:
    """Return the first position with no more than a share left, or the length."""
    return int((left > share).sum())
