"""A manifold-phase step at 64 × 64 × 3, d = 64, batch 16, against the architecture of the original paper.

The original is assembled from nflows' parts: 4 levels × 5 steps of [ActNorm, 1 × 1, rational-quadratic
coupling with a residual net of 2 blocks and 100 channels], the finest half leaving after each level, then
LU – LogTanh – LU on 3,840 coordinates, the leading channels of every level, which come first (Brehmer,
Cranmer 2020, arXiv 2003.13913, and its code).

`cpu_ratio` is the CPU time of our step over its. `mse_ratio_equal_cpu` is our squared error on unseen CelebA
faces over its after equal CPU time; each side is trained with its own batch and learning rate (ours the
default preset's, the original's 16 and the paper's 3e-4).
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from harness import celeba, put, say, start, train_for
from nflows.nn.nets import ConvResidualNet
from nflows.transforms import (
    ActNorm,
    CompositeTransform,
    LogTanh,
    LULinear,
    MultiscaleCompositeTransform,
    OneByOneConvolution,
    PiecewiseRationalQuadraticCouplingTransform,
    SqueezeTransform,
    Transform,
)
from nflows.utils import create_mid_split_binary_mask
from torch import Tensor, nn
from torch.nn import functional as F

from mfimage.config import ModelConfig, presets
from mfimage.datasets import ImageSet
from mfimage.losses import reconstruction
from mfimage.models.build import build

DIM, BATCH = 64, 16


class Leading(Transform):
    """The original's last map: chosen coordinates come first, through LU – LogTanh – LU; the rest follow."""

    def __init__(self, chosen: Tensor, features: int) -> None:
        super().__init__()
        rest = torch.ones(features, dtype=torch.bool).index_fill(0, chosen, False).nonzero().flatten()
        self.count = len(chosen)
        self.register_buffer("order", torch.cat([chosen, rest]))
        linear = [LULinear(self.count, identity_init=True) for _ in range(2)]
        self.inner = CompositeTransform([linear[0], LogTanh(cut_point=1), linear[1]])

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map (B, D)."""
        x = x[:, self.order]
        y, ladj = self.inner(x[:, : self.count])
        return torch.cat([y, x[:, self.count :]], 1), ladj

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map back."""
        y, ladj = self.inner.inverse(x[:, : self.count])
        return torch.cat([y, x[:, self.count :]], 1)[:, self.order.argsort()], ladj


def original(shape: tuple[int, int, int]) -> Transform:
    """Assemble the original image chart; 2, 4, 8, 16 channels of its levels go through the LU layers."""
    channels, height, width = shape
    multiscale, chosen, offset = MultiscaleCompositeTransform(num_transforms=4), [], 0
    for level in range(4):
        squeeze = SqueezeTransform()
        channels, height, width = squeeze.get_output_shape(channels, height, width)
        steps: list[Transform] = [squeeze]
        for _ in range(5):
            steps += [ActNorm(channels), OneByOneConvolution(channels), _coupling(channels)]
        after = multiscale.add_transform(
            CompositeTransform([*steps, OneByOneConvolution(channels)]), (channels, height, width)
        )
        chosen.append(offset + torch.arange(2 * 2**level * height * width))
        offset += channels * height * width // (2 if after else 1)
        channels, height, width = after or (channels, height, width)
    return CompositeTransform([multiscale, Leading(torch.cat(chosen), offset)])


def _coupling(channels: int) -> Transform:
    return PiecewiseRationalQuadraticCouplingTransform(
        create_mid_split_binary_mask(channels),
        lambda inputs, outputs: ConvResidualNet(inputs, outputs, hidden_channels=100, num_blocks=2),
        num_bins=11,
        tails="linear",
        tail_bound=10.0,
    )


def original_loss(chart: nn.Module, x: Tensor) -> Tensor:
    """Squared error an image of the original; its first d coordinates are kept, as in its code."""
    z, _ = chart(x - 0.5)
    codes = F.pad(z[:, :DIM], (0, z.shape[1] - DIM))
    return (chart.inverse(codes)[0] + 0.5 - x).square().flatten(1).sum(1).mean()


def step_seconds(
    module: nn.Module, loss: Callable[[nn.Module, Tensor], Tensor], x: Tensor, steps: int
) -> float:
    """CPU seconds of an optimiser step, the median of several after one that warms up."""
    optimiser = torch.optim.AdamW(module.parameters(), lr=1e-5)
    seconds = []
    for _ in range(steps + 1):
        began = time.process_time()
        optimiser.zero_grad()
        loss(module, x).backward()
        nn.utils.clip_grad_norm_(module.parameters(), 20.0)
        optimiser.step()
        seconds.append(time.process_time() - began)
    return sorted(seconds[1:])[steps // 2]


def main() -> None:
    """Time a step of both, then train both for the same CPU time."""
    quick = start(__doc__)
    shape = (3, 32, 32) if quick else (3, 64, 64)
    first = torch.rand(4 * DIM, *shape)  # what the images show does not change what a step costs
    chart, old = build(ModelConfig(shape, DIM), seed=0).chart, original(shape)
    millions = [sum(p.numel() for p in m.parameters()) / 1e6 for m in (chart, old)]
    say(f"parameters: ours {millions[0]:.1f} M, the original {millions[1]:.1f} M")
    theirs = step_seconds(old, original_loss, first[:BATCH], 1 if quick else 3)
    chart.initialise(first)
    ours = step_seconds(chart, reconstruction, first[:BATCH], 5 if quick else 20)
    say(f"CPU seconds a step: ours {ours:.4f}, the original {theirs:.3f}")
    results: dict[str, float | None] = {
        "cpu_ratio": ours / theirs,
        "ours_seconds": ours,
        "original_seconds": theirs,
    }
    faces = None if quick else celeba()
    results |= _equal_time(faces) if faces else {"mse_ratio_equal_cpu": None}
    put(quick, **results)


def _equal_time(faces: tuple[ImageSet, ImageSet], seconds: float = 300) -> dict[str, float]:
    training, unseen = faces
    config = presets["default"]
    chart, old = build(ModelConfig(training.shape, DIM), seed=0).chart, original(training.shape)
    began = time.process_time()
    chart.initialise(training.batch(range(4000)))
    train_for(seconds - (time.process_time() - began), chart, reconstruction, training, config.lr, 64)
    old(training.batch(range(BATCH)))  # its ActNorm initialises at the first forward
    steps, _ = train_for(seconds, old, original_loss, training, 3e-4, BATCH)
    with torch.no_grad():
        sample = unseen.subset(range(256))
        ours = sum(float(reconstruction(chart, x)) for x in sample.batches(64)) / 4
        theirs = sum(float(original_loss(old, x)) for x in sample.batches(64)) / 4
    say(
        f"squared error an unseen face after {seconds:.0f} CPU-seconds: "
        f"ours {ours:.1f}, the original {theirs:.1f} ({steps} steps)"
    )
    return {
        "mse_ratio_equal_cpu": ours / theirs,
        "ours_error": ours,
        "original_error": theirs,
        "original_steps": steps,
    }


if __name__ == "__main__":
    main()
