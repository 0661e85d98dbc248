"""What a bug report asks for: versions, devices, caches, what is optional, and whether all of it works."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, metadata, version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from packaging.requirements import Requirement

from mfimage import __version__
from mfimage.config import Config
from mfimage.console import counted
from mfimage.datasets.named import data_root
from mfimage.datasets.sources import named_set
from mfimage.errors import MfimageError, reason_of
from mfimage.eval.inception import InceptionUnavailable, find_inception_weights
from mfimage.files import cache_folder
from mfimage.models import ManifoldFlow
from mfimage.pretrained import from_pretrained
from mfimage.run import environment
from mfimage.training import train

_CONFIG = Config(
    dim=4, steps=30, density_steps=30, batch_size=64, warmup=10, every=30, validation=50, noise=0.0,
    flip=False, model={"width": 4, "hidden": 32, "density_width": 32},
)  # fmt: skip
_IMAGES = 500
_CLOSE = 1e-4  # of the inverse, in values of [0, 1], and of volumes, relative


class Finding(NamedTuple):
    """A line of the report."""

    what: str
    found: str
    wrong: bool = False


def examine(device: str = "auto", home: Path | None = None) -> Iterator[Finding]:
    """Look at this installation, and try it; findings as they come.

    Args:
        device: Of the trial; see `train`.
        home: Folder of the trial's files; a temporary one, which is removed, if None.
    """
    yield from _machine()
    yield from _packages()
    yield from _caches()
    yield _inception()
    if home is not None:
        yield _tried(device, home)
        return
    with tempfile.TemporaryDirectory(prefix="mfimage-doctor-") as folder:
        yield _tried(device, Path(folder))


def _machine() -> Iterator[Finding]:
    about = environment()
    yield Finding("mfimage", f"{__version__} in {Path(__file__).parent}")
    yield Finding("python", f"{about['python']} on {about['platform']}")
    yield Finding(
        "processor", f"{about['processor']}, {about['cores']} cores, {about['threads']} threads of torch"
    )
    gpus = [f"cuda:{i} {name}" for i, name in enumerate(about["gpus"])]
    if torch.backends.mps.is_available():
        gpus.append("mps, which is not used: it has no float64")
    build = (
        f"this torch is built for CUDA {torch.version.cuda}"
        if torch.version.cuda
        else "this torch is for CPUs"
    )
    yield Finding("devices", ", ".join(["cpu", *gpus]) + f" ({build})")


def _packages() -> Iterator[Finding]:
    """Compare what is installed with what mfimage asks for; what is optional may be missing."""
    try:
        about = metadata("mfimage")
    except PackageNotFoundError:
        yield Finding(
            "packages",
            "none is known: this package lies in a folder and was not installed; pip install it",
            wrong=True,
        )
        return
    extras = about.get_all("Provides-Extra", [])
    for one in map(Requirement, about.get_all("Requires-Dist", [])):
        extra = next((name for name in extras if one.marker and one.marker.evaluate({"extra": name})), "")
        yield _package(one, extra)


def _package(asked: Requirement, extra: str) -> Finding:
    what = f"{asked.name} (optional: {extra})" if extra else asked.name
    try:
        here = version(asked.name)
    except PackageNotFoundError:
        wanted = f"mfimage[{extra}]" if extra else f"{asked.name}{asked.specifier}"
        return Finding(what, f"missing: pip install '{wanted}'", wrong=not extra)
    fits = asked.specifier.contains(here, prereleases=True)
    return Finding(what, here if fits else f"{here}, but {asked.specifier} is asked for", wrong=not fits)


def _caches() -> Iterator[Finding]:
    for what, folder in (("cache", cache_folder()), ("named data sets", data_root(None))):
        yield Finding(what, "nowhere: there is no home folder" if folder is None else _size(Path(folder)))


def _size(folder: Path) -> str:
    """Say how many files are in a folder, and how large they are together."""
    sizes: list[int] = []
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # it has just gone
                sizes.append(os.stat(os.path.join(parent, name)).st_size)
    return f"{folder}: {counted(len(sizes), 'file')}, {sum(sizes) / 2**20:,.0f} MiB"


def _inception() -> Finding:
    """Find the network of the FID, without which `evaluate` leaves it out."""
    try:
        return Finding("inception weights", str(find_inception_weights(download=False).source))
    except InceptionUnavailable as error:
        return Finding("inception weights", str(error))
    except MfimageError as error:
        return Finding("inception weights", str(error), wrong=True)


def _tried(device: str, home: Path) -> Finding:
    """Learn bundled clothes for seconds, and hold the promises of the mathematics against the result."""
    began = time.monotonic()
    try:
        found = "; ".join(_try(device, home))
    except Exception as error:
        return Finding("trial", f"failed: {reason_of(error)}", wrong=True)
    return Finding("trial", f"passed in {time.monotonic() - began:.0f} s: {found}")


def _try(device: str, home: Path) -> Iterator[str]:
    """Say what holds; AssertionError for what does not."""
    clothes = named_set("fashion-mini", "train").subset(range(_IMAGES))
    model = train(clothes, home / "run", _CONFIG, device=device)
    x = clothes.batch(range(8)).to(model.device)
    assert isinstance(model, ManifoldFlow)
    yield f"{_CONFIG.steps} steps on {model.device}"
    again = from_pretrained(home / "run", model.device)
    _hold(torch.equal(again.project(x), model.project(x)), "a model that is read again projects otherwise")
    chart: Any = model.chart
    gap = float((chart.inverse(chart(x)[0])[0] - x).detach().abs().max())
    _hold(gap < _CLOSE, f"the chart's inverse is off by {gap:.2g}")
    yield f"inverse off by {gap:.1g}"
    u = model.encode(x[:1]).detach()
    jacobian = torch.autograd.functional.jacobian(lambda one: model.decode(one).flatten(), u)[:, 0].double()
    metric = jacobian.T @ jacobian
    gap = float(((model.metric(u)[0] - metric).abs().max() / metric.max()).detach())
    _hold(gap < _CLOSE, f"the metric is off by {gap:.2g} of its largest entry")
    yield f"metric by {gap:.1g}"
    _hold(bool(model.log_prob(x).isfinite().all()), "a log-density is not finite")


def _hold(true: bool, otherwise: str) -> None:
    if not true:
        raise AssertionError(otherwise)
