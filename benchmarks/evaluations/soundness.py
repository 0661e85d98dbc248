"""Whether distances of `mfimage evaluate` are right, what they cost, whether they grow with the change."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from harness import SHARED, celeba, say
from torch import Tensor

from mfimage.datasets import gaussian_noise, load
from mfimage.datasets.pictures import save_pngs
from mfimage.eval import (
    FeatureExtractor,
    InceptionFeatures,
    InceptionUnavailable,
    coverage,
    find_inception_weights,
    frechet_distance,
    kernel_distance,
)
from mfimage.eval.features import ScatteringFeatures, quantise
from mfimage.eval.inception import build_inception

Values = dict[str, Any]
PYTORCH_FID = (
    "import sys, runpy; from mfimage._torchvision import import_torchvision; import_torchvision(); "
    "runpy.run_module('pytorch_fid', run_name='__main__')"
)


def inception() -> InceptionFeatures | None:
    """The Inception, or None with the reason on stderr."""
    try:
        return InceptionFeatures(find_inception_weights())
    except InceptionUnavailable as error:
        say(f"without Inception: {error}")
        return None


def parity(quick: bool) -> Values:
    """Distances by other programs, beside ours."""
    count = 100 if quick else 600
    images = load("fashion-mini", "train").batch(slice(0, 2 * count))
    a, b = images[:count], gaussian_noise(images[count:], 0.1, torch.Generator().manual_seed(0))
    net: FeatureExtractor | None = None if quick else inception()
    found: Values = {}
    if net is not None:
        weights = find_inception_weights()
        with tempfile.TemporaryDirectory() as folder:
            hub = Path(folder) / "hub" / "checkpoints"
            hub.mkdir(parents=True)
            last = {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}
            torch.save({**weights.tensors, **last}, hub / "pt_inception-2015-12-05-6726825d.pth")
            for name, x in (("a", a), ("b", b)):
                save_pngs(x, [f"{i:05d}" for i in range(len(x))], Path(folder) / name)
            told = subprocess.run(
                [sys.executable, "-c", PYTORCH_FID, "a", "b", "--device", "cpu", "--num-workers", "0"],
                capture_output=True, text=True, check=True, cwd=folder,
                env={**os.environ, "TORCH_HOME": folder, "PYTHONPATH": str(Path(__file__).parents[2])},
            )  # fmt: skip
        found["pytorch_fid"] = float(told.stdout.split()[-1])
    net = net or ScatteringFeatures(1)
    x, y = net(a), net(b)
    if "pytorch_fid" in found:
        found["fid"] = frechet_distance(x, y)
        found["fid_difference"] = abs(found["fid"] - found["pytorch_fid"])
    found |= others(x, y)
    say(f"parity: {found}")
    return found


def others(x: Tensor, y: Tensor) -> Values:
    """KID and neighbour counts by their own packages: the largest differences."""
    found: Values = {}
    if find_spec("torch_fidelity"):
        from mfimage._torchvision import import_torchvision

        import_torchvision()
        from torch_fidelity.metric_kid import kid_features_to_metric

        size = len(x) // 2
        theirs = kid_features_to_metric(x, y, verbose=False, kid_subsets=20, kid_subset_size=size)
        ours, _ = kernel_distance(x, y, 20, size)
        found["kid"] = ours
        found["kid_difference"] = abs(ours - theirs["kernel_inception_distance_mean"])
    if find_spec("prdc"):
        from prdc import compute_prdc

        expected = compute_prdc(x.numpy(), y.numpy(), nearest_k=5)
        ours_too = {k: float(v.double().mean()) for k, v in coverage(x, y)._asdict().items()}
        found["prdc_difference"] = max(abs(ours_too[k] - float(v)) for k, v in expected.items())
    return found


def rates(quick: bool) -> Values:
    """What features and distances cost."""
    dim, count = (256, 600) if quick else (2048, 5000)
    torch.set_num_threads(2)
    sets = [torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]
    began, cpu = time.perf_counter(), time.process_time()
    frechet_distance(*sets)
    found: Values = {
        "frechet_seconds": time.perf_counter() - began, "frechet_cpu_seconds": time.process_time() - cpu,
    }  # fmt: skip
    torch.set_num_threads(1)
    net = None if quick else inception()
    if net is not None:
        x = load("fashion-mini", "train").batch(slice(0, 64))
        bare = build_inception(find_inception_weights().tensors)
        bare = bare.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        large = torch.nn.functional.interpolate(quantise(x), (299, 299), mode="bilinear").expand(
            -1, 3, -1, -1
        )
        large = (2 * large - 1).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            pairs = [(cpu_of(lambda: net(x)), cpu_of(lambda: bare_pass(bare, large))) for _ in range(5)]
        ratios = sorted(theirs / ours for ours, theirs in pairs)
        found["inception_rate"] = ratios[2]  # of the bare one
        found["inception_images_per_second"] = 64 / sorted(ours for ours, _ in pairs)[2]
    say(f"rates: {found}")
    return found


def bare_pass(net: Any, x: Tensor) -> None:
    """Forward and nothing else, 32 at a time as ours."""
    for part in x.split(32):
        net(part)


def cpu_of(work: Callable[[], object]) -> float:
    """CPU seconds that something takes."""
    began = time.process_time()
    work()
    return time.process_time() - began


def ordering(quick: bool) -> Values:
    """Whether distances grow as sets grow apart."""
    count = 60 if quick else 500
    if quick:
        images = load("fashion-mini", "test").batch(slice(0, 2 * count))
        far, what = images.roll(7, 3).flip(2)[:count], "upside down"
    else:
        if not (faces := celeba()):
            return {}
        images = faces[1].batch(slice(0, 2 * count))
        far, what = (
            load(SHARED / "tinyimagenet_val4000.zip", "all", 64, 3).batch(slice(0, count)),
            "Tiny-ImageNet",
        )
    real, same = images[:count], images[count:]
    noisy = gaussian_noise(same, 25 / 255, torch.Generator().manual_seed(0))
    spaces: dict[str, FeatureExtractor] = {"fd-scattering": ScatteringFeatures(images.shape[1])}
    net = None if quick else inception()
    if net is not None:
        spaces["fid"] = net
    found: Values = {}
    for space, extractor in spaces.items():
        known = extractor(real)
        for name, x in {"other faces": same, "noise 25/255": noisy, what: far}.items():
            features = extractor(x)
            cell = found.setdefault(name, {})
            cell[space] = frechet_distance(features, known)
            if space == "fid":
                cell["kid"] = kernel_distance(features, known, 50, count // 2)[0]
                parts = coverage(known, features)._asdict()
                cell |= {k: float(v.double().mean()) for k, v in parts.items()}
            say(f"ordering {name}: {cell}")
    return found
