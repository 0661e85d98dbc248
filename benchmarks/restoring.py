"""Holes that are filled in and images that are enlarged, beside what scikit-image and torch do.

Unseen images, cut to [0, 1]: the mean PSNR (dB) of ours, of the others, and of ours over the other with its
95 % interval over images; CPU seconds an image. The models are those of `denoising.py`, read from --models
FOLDER/SET, or trained there in --time seconds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from denoisers.sets import tasks
from harness import put, say, trained
from torch import Tensor
from torch.nn import functional as F

from mfimage.denoising.operators import Downsample
from mfimage.denoising.restoring import enlarge, fill
from mfimage.eval.image_metrics import psnr
from mfimage.eval.numbers import mean_interval


def holes(x: Tensor) -> dict[str, Tensor]:
    """What is missing of images (B, C, H, W), masks (B, 1, H, W)."""
    height, width = x.shape[-2:]
    random = torch.rand(len(x), 1, height, width, generator=torch.Generator().manual_seed(0))
    block = torch.zeros_like(random, dtype=torch.bool)
    block[..., height // 4 : height // 2, width // 4 : 3 * width // 4] = True
    return {
        "half of the pixels": random < 0.5,
        "80 % of the pixels": random < 0.8,
        "an eighth, a block": block,
    }


def biharmonic(y: Tensor, missing: Tensor) -> Tensor:
    """Fill in by scikit-image's `inpaint_biharmonic`."""
    from skimage.restoration import inpaint_biharmonic

    images = y.permute(0, 2, 3, 1).numpy()
    pairs = zip(images, missing[:, 0].numpy(), strict=True)
    filled = [inpaint_biharmonic(image, mask, channel_axis=-1) for image, mask in pairs]
    return torch.from_numpy(np.stack(filled)).permute(0, 3, 1, 2).float()


def bicubic(y: Tensor, factor: int) -> Tensor:
    """Enlarge by torch's bicubic interpolation."""
    return F.interpolate(y, scale_factor=factor, mode="bicubic", align_corners=False)


def beside(x: Tensor, ours: Callable[[], Tensor], other: Callable[[], Tensor]) -> dict[str, Any]:
    """PSNR of both, of ours over the other, and CPU seconds an image."""
    found, seconds = [], []
    for restore in (ours, other):
        began = time.process_time()
        found.append(psnr(x, restore().clamp(0, 1)).double())
        seconds.append((time.process_time() - began) / len(x))
    over = mean_interval(found[0] - found[1])
    return {
        "ours": float(found[0].mean()), "other": float(found[1].mean()), "over": over.value,
        "low": over.low, "high": over.high, "seconds": seconds[0], "other_seconds": seconds[1],
    }  # fmt: skip


def measure(x: Tensor, model: Any) -> dict[str, dict[str, Any]]:
    """Measure every problem on images (B, C, H, W)."""
    found = {}
    for name, missing in holes(x).items():
        y = x.masked_fill(missing, 0.0)
        found[name] = beside(
            x, lambda y=y, m=missing: fill(y, m, model), lambda y=y, m=missing: biharmonic(y, m)
        )
        say(f"{name}: {found[name]}")
    for factor in (2, 4):
        y = Downsample(factor).forward(x)
        found[f"enlarged, {factor} times"] = beside(
            x, lambda y=y, k=factor: enlarge(y, k, model), lambda y=y, k=factor: bicubic(y, k)
        )
        say(f"{factor} times: {found[f'enlarged, {factor} times']}")
    return found


def main() -> None:
    """Measure the sets named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a tiny model of small clothes, for a look")
    parser.add_argument("--models", type=Path, default=Path("runs/denoising"), help="where models are kept")
    parser.add_argument("--data", default="fashion-mnist,celeba", help="sets, comma-separated")
    parser.add_argument("--time", type=float, help="seconds of a training (1,800; faces 3,600)")
    parser.add_argument("--images", type=int, default=50)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    quick, results = arguments.quick, {}
    names = ["fashion-mnist"] if quick else arguments.data.split(",")
    for task in tasks(names, quick, arguments.time):
        model, _ = trained(task.training, task.config, arguments.models / task.name / "m-flow")
        results[task.name] = measure(task.clean[: 4 if quick else arguments.images], model)
    put(quick, data=results)


if __name__ == "__main__":
    main()
