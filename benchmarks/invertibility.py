"""How exactly the charts are inverted.

`max_error_float64`: the largest error over all bijections, perturbed away from the identity, of the inverse
(absolute) and of ladj against the log-determinant of autograd's Jacobian (nats). `round_trip_float32`: the
largest |x − f(f⁻¹(x))| over pixels in [0, 1] of the whole 64 × 64 × 3 chart, after training on CelebA faces
(on colour-upsampled clothes where the faces are not at hand).
"""

from __future__ import annotations

import torch
from harness import celeba, put, say, start, train_for
from nflows.transforms import Transform
from torch import Tensor

from mfimage.config import ModelConfig, presets
from mfimage.datasets import ImageSet, load
from mfimage.losses import reconstruction
from mfimage.models import image_chart
from mfimage.models.build import build
from mfimage.models.layers import ActNorm
from mfimage.models.pairs import DensePair
from mfimage.models.subspace import Householder
from mfimage.models.wavelets import Haar


def bijections() -> dict[str, tuple[tuple[int, ...], Transform]]:
    """Every bijection of the project with the shape of its input."""
    image = (4, 4, 4)
    return {
        "Haar": (image, Haar(4, 4)),
        "ActNorm": (image, ActNorm(4)),
        "Householder": ((24,), Householder(24, 5)),
        "DensePair": ((24,), DensePair(5, 19, 16)),
        "chart, grey": ((1, 8, 8), image_chart(ModelConfig((1, 8, 8), 3, levels=2, hidden=16, bends=2))),
        "chart, colour": ((3, 8, 8), image_chart(ModelConfig((3, 8, 8), 6, steps=2, hidden=16))),
        "chart, odd": ((1, 9, 7), image_chart(ModelConfig((1, 9, 7), 3, levels=2, hidden=16))),
    }


def errors(shape: tuple[int, ...], bijection: Transform) -> float:
    """Largest error of inverse and ladj over ten inputs, in float64."""
    bijection = bijection.double().eval().requires_grad_(False)
    with torch.no_grad():
        for parameter in bijection.parameters():
            fan = parameter[0].numel() if parameter.dim() > 1 else 1
            parameter.add_(0.3 / fan**0.5 * torch.randn_like(parameter))
    worst = 0.0
    for _ in range(10):
        x = torch.randn(1, *shape, dtype=torch.float64)
        y, ladj = bijection(x)
        jacobian = torch.autograd.functional.jacobian(
            lambda v: bijection(v.view(1, *shape))[0].flatten(), x.flatten()
        )
        back, back_ladj = bijection.inverse(y)
        worst = max(
            worst,
            float((back - x).abs().max()),
            float((ladj - torch.linalg.slogdet(jacobian).logabsdet).abs().max()),
            float((ladj + back_ladj).abs().max()),
        )
    return worst


def colour_clothes() -> ImageSet:
    """Clothes at 64 × 64 in three channels, where no faces are at hand."""
    clothes = load("fashion-mini", "train", 64, 3)
    tint = torch.tensor([1.0, 0.8, 0.6]).view(1, 3, 1, 1)
    return ImageSet(clothes.batch(slice(0, 4000)) * tint, "tinted clothes", "train", clothes.paths[:4000])


@torch.no_grad()
def round_trip(chart: Transform, x: Tensor) -> float:
    """Largest pixel error of x → coordinates → x."""
    return max(float((chart.inverse(chart(part)[0])[0] - part).abs().max()) for part in x.split(64))


def main() -> None:
    """Measure both."""
    quick = start(__doc__)
    rows = {name: errors(shape, bijection) for name, (shape, bijection) in bijections().items()}
    for name, worst in rows.items():
        say(f"{name:20} {worst:.2e}")
    faces = celeba()
    training, unseen = faces or (colour_clothes(), load("fashion-mini", "test", 64, 3))
    config = presets["default"]
    chart = build(ModelConfig((3, 64, 64), 64), seed=0).chart
    chart.initialise(training.batch(range(2000)))
    steps, seconds = train_for(2 if quick else 200, chart, reconstruction, training, config.lr, 64)
    x = unseen.batch(range(500))
    with torch.no_grad():
        loss = float(reconstruction(chart, x[:64]))
    worst = round_trip(chart, x)
    say(f"64 × 64 × 3 after {steps} steps ({seconds:.0f} CPU-seconds, error {loss:.1f}): {worst:.2e}")
    put(
        quick,
        max_error_float64=max(rows.values()),
        round_trip_float32=worst,
        per_bijection=rows,
        data=training.name if faces else "tinted clothes",
    )


if __name__ == "__main__":
    main()
