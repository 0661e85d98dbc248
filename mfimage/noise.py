"""Models of noise, what they add to images, and their text.

Numbers may be ranges, from which each image of a training draws its own. Images lie in [0, 1], and so do σ:

    gaussian:SIGMA                y = x + σε
    poisson:PEAK                  y = Poisson(peak·x) / peak: variance x/peak; peak is the photons of white
    poisson-gaussian:PEAK,SIGMA   both: variance a·x + b with a = 1/peak, b = σ²; a camera's, a microscope's
    salt-pepper:SHARE             this share of the values is black or white, as often the one as the other
    correlated:SIGMA,WIDTH        Gaussian noise of deviation σ, blurred by a Gaussian of WIDTH pixels
    colour:LUMINANCE,CHROMA       Gaussian noise that is not the same in brightness and in colour; σ of each
"""

from __future__ import annotations

import math
import re
from dataclasses import astuple, dataclass, fields
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from mfimage.errors import UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Range: TypeAlias = "tuple[float, float]"  # low ≤ high


@dataclass(frozen=True)
class Noise:
    """Interface of models of noise: a number, or a range of it, for each field."""

    kind: ClassVar[str] = ""
    limits: ClassVar[tuple[Range, ...]] = ()  # of each field
    logarithmic: ClassVar[bool] = False  # whether the first is drawn evenly in its logarithm

    @property
    def ranges(self) -> tuple[Range, ...]:
        """The range of each number."""
        return astuple(self)

    @property
    def brief(self) -> str:
        """The same with two digits a number, to be read."""
        numbers = ["-".join(dict.fromkeys(f"{end:.2g}" for end in ends)) for ends in self.ranges]
        return f"{self.kind}:{','.join(numbers)}"

    @property
    def fixed(self) -> bool:
        """Whether there is one number of each."""
        return all(low == high for low, high in self.ranges)

    def __str__(self) -> str:
        """The text that `parse_noise` reads."""
        return f"{self.kind}:{','.join(map(_text_of, self.ranges))}"

    def add(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Add noise to images (B, C, H, W); numbers are drawn evenly from ranges, a peak in its logarithm.

        Returns y, not cut to [0, 1], and the deviation of its noise, see `deviation`.
        """
        drawn = [
            _drawn(ends, x, generator, self.logarithmic and i == 0) for i, ends in enumerate(self.ranges)
        ]
        return self._noisy(x, generator, *drawn), self._deviation(x, *drawn)

    def deviation(self, x: Tensor) -> Tensor:
        """Root of the mean of the noise's variance over each clean image (B, C, H, W), shape (B,).

        The numbers are fixed.
        """
        return self._deviation(x, *self._numbers(x))

    def deviation_seen(self, y: Tensor) -> Tensor:
        """Estimate `deviation` from images (B, C, H, W) that have this noise, shape (B,).

        It follows from means of y or y² over the image, with what the noise adds to them taken off. Noise
        that was cut to [0, 1] adds more to a dark image than that.
        """
        return self._deviation_seen(y, *self._numbers(y))

    def variance(self, x: Tensor) -> Tensor:
        """Variance of the noise in each value of images like x, (B, C, H, W); the numbers are fixed."""
        return self._variance(x, *self._numbers(x)).expand_as(x)

    def _numbers(self, x: Tensor) -> list[Tensor]:
        return [x.new_full((len(x), 1, 1, 1), low) for low, _ in self.ranges]

    def _noisy(self, x: Tensor, generator: torch.Generator, *numbers: Tensor) -> Tensor:
        raise NotImplementedError

    def _variance(self, x: Tensor, *numbers: Tensor) -> Tensor:
        raise NotImplementedError

    def _deviation(self, x: Tensor, *numbers: Tensor) -> Tensor:
        return self._variance(x, *numbers).expand_as(x).flatten(1).mean(1).sqrt()

    def _deviation_seen(self, y: Tensor, *numbers: Tensor) -> Tensor:
        return self._deviation(y, *numbers)  # where the variance does not depend on x


@dataclass(frozen=True)
class Gaussian(Noise):
    """y = x + σε, white."""

    sigma: Range
    kind = "gaussian"
    limits = ((0.0, math.inf),)

    def _noisy(self, x: Tensor, generator: torch.Generator, *numbers: Tensor) -> Tensor:
        return x + numbers[0] * _normal(x, generator)

    def _variance(self, x: Tensor, *numbers: Tensor) -> Tensor:
        return numbers[0].square()

    def _deviation(self, x: Tensor, *numbers: Tensor) -> Tensor:
        return numbers[0].flatten()  # to the last bit


@dataclass(frozen=True)
class Poisson(Noise):
    """y = Poisson(peak·x)/peak: photons are counted, `peak` of them where it is white."""

    peak: Range
    kind = "poisson"
    limits = ((0.1, 1e9),)
    logarithmic = True

    def _noisy(self, x: Tensor, generator: torch.Generator, *numbers: Tensor) -> Tensor:
        import torch

        photons = (numbers[0] * x.clamp_min(0)).cpu()
        return torch.poisson(photons, generator).to(x) / numbers[0]

    def _variance(self, x: Tensor, *numbers: Tensor) -> Tensor:
        return x.clamp_min(0) / numbers[0]

    def _deviation_seen(self, y: Tensor, *numbers: Tensor) -> Tensor:
        return self._deviation(y.mean((1, 2, 3), keepdim=True), *numbers)  # the noise has mean 0


@dataclass(frozen=True)
class PoissonGaussian(Noise):
    """y = Poisson(peak·x)/peak + σε: photons, and the electronics that read them."""

    peak: Range
    sigma: Range
    kind = "poisson-gaussian"
    limits = (Poisson.limits[0], (0.0, 1.0))
    logarithmic = True

    def _noisy(self, x: Tensor, generator: torch.Generator, *numbers: Tensor) -> Tensor:
        counted = Poisson(self.peak)._noisy(x, generator, numbers[0])
        return counted + numbers[1] * _normal(x, generator)

    def _variance(self, x: Tensor, *numbers: Tensor) -> Tensor:
        return x.clamp_min(0) / numbers[0] + numbers[1].square()

    def _deviation_seen(self, y: Tensor, *numbers: Tensor) -> Tensor:
        return self._deviation(y.mean((1, 2, 3), keepdim=True), *numbers)  # the noise has mean 0


@dataclass(frozen=True)
class SaltPepper(Noise):
    """A share of the values is lost: 0 or 1 is there instead, with equal probability."""

    share: Range
    kind = "salt-pepper"
    limits = ((0.0, 1.0),)

    def _noisy(self, x: Tensor, generator: torch.Generator, *numbers: Tensor) -> Tensor:
        import torch

        draw = torch.rand(x.shape, generator=generator, dtype=torch.float32).to(x)
        return x.masked_fill(draw < numbers[0], 0.0).masked_fill(draw < numbers[0] / 2, 1.0)

    def _variance(self, x: Tensor, *numbers: Tensor) -> Tensor:
        return numbers[0] * (x.square() + (1 - x).square()) / 2

    def _deviation_seen(self, y: Tensor, *numbers: Tensor) -> Tensor:
        """Of y the mean of x² + (1 − x)² is (1 − p) times that of x, and p: lost values have 1."""
        share, seen = numbers[0].flatten(), (y.square() + (1 - y).square()).flatten(1).mean(1)
        clean = ((seen - share) / (1 - share).clamp_min(1e-6)).clamp(0.5, 1)
        return (share * clean / 2).sqrt()


@dataclass(frozen=True)
class Correlated(Noise):
    """y = x + σ·(k∗ε)/‖k‖, k a Gaussian whose standard deviation is `width` pixels."""

    sigma: Range
    width: Range
    kind = "correlated"
    limits = ((0.0, 1.0), (0.0, 8.0))

    def _noisy(self, x: Tensor, generator: torch.Generator, *numbers: Tensor) -> Tensor:
        reach = math.ceil(3 * self.width[1])
        wide = x.new_zeros(*x.shape[:2], x.shape[2] + 2 * reach, x.shape[3] + 2 * reach)
        noise, kernel = _normal(wide, generator), _kernels(numbers[1].flatten(), reach)
        for axis in (-1, -2):
            windows = noise.unfold(axis, 2 * reach + 1, 1)
            noise = (windows * kernel.view(len(x), 1, 1, 1, -1)).sum(-1)
        return x + numbers[0] * noise

    def _variance(self, x: Tensor, *numbers: Tensor) -> Tensor:
        return numbers[0].square()


@dataclass(frozen=True)
class Colour(Noise):
    """y = x + σ_L ε̄ + σ_C (ε − ε̄), ε̄ the mean of the channels: σ_L along (1, 1, 1)/√3, σ_C across.

    A camera's files are so: what makes colours of a sensor's values, and JPEG, treat the two differently.
    """

    luminance: Range
    chroma: Range
    kind = "colour"
    limits = ((0.0, 1.0), (0.0, 1.0))

    def _noisy(self, x: Tensor, generator: torch.Generator, *numbers: Tensor) -> Tensor:
        noise = _normal(x, generator)
        grey = noise.mean(1, keepdim=True)
        return x + numbers[0] * grey + numbers[1] * (noise - grey)

    def _variance(self, x: Tensor, *numbers: Tensor) -> Tensor:
        channels = x.shape[1]
        return (numbers[0].square() + (channels - 1) * numbers[1].square()) / channels


KINDS: dict[str, type[Noise]] = {
    one.kind: one for one in (Gaussian, Poisson, PoissonGaussian, SaltPepper, Correlated, Colour)
}
FORMS = ", ".join(f"{kind}:{','.join(f.name.upper() for f in fields(one))}" for kind, one in KINDS.items())


def parse_noise(text: str) -> Noise:
    """Read the text of a model of noise; numbers alone are Gaussian. UsageError for what is none."""
    kind, colon, numbers = text.partition(":")
    if not colon and not kind[:1].isalpha():
        kind, numbers = "gaussian", text
    if (model := KINDS.get(kind)) is None:
        raise UsageError(f"noise {text}: there is no noise {kind!r}: choose from {FORMS}")
    ranges, names = [_range_of(part) for part in numbers.split(",")], [one.name for one in fields(model)]
    if len(ranges) != len(names) or None in ranges:
        example = ",".join(name.upper() for name in names)
        raise UsageError(
            f"noise {text}: {kind}:{example} is expected, each a number from 0 or a range LOW-HIGH"
        )
    for name, ends, (least, most) in zip(names, ranges, model.limits, strict=True):
        if ends is None or not least <= ends[0] <= ends[1] <= most:
            limits = f"from {least:g}" + (f" to {most:g}" if math.isfinite(most) else "")
            raise UsageError(f"noise {text}: {name} must be a number {limits}, or a range of such, low first")
    return model(*ranges)


def _range_of(text: str) -> Range | None:
    """Read a number or LOW-HIGH; None for anything else."""
    number = r"(\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?)"
    found = re.fullmatch(rf"\s*{number}(?:-{number})?\s*", text)
    if found is None:
        return None
    low, high = float(found[1]), float(found[2] or found[1])
    return (low, high) if math.isfinite(low) and math.isfinite(high) else None


def _text_of(ends: Range) -> str:
    low, high = (repr(float(one)).removesuffix(".0") for one in ends)
    return low if low == high else f"{low}-{high}"


def _drawn(ends: Range, x: Tensor, generator: torch.Generator, logarithmic: bool) -> Tensor:
    """Draw a number for each image, (B, 1, 1, 1)."""
    import torch

    low, high = map(math.log, ends) if logarithmic else ends
    draw = low + (high - low) * torch.rand(len(x), generator=generator, dtype=torch.float32)
    return (draw.exp() if logarithmic else draw).to(x).view(-1, 1, 1, 1)


def _normal(x: Tensor, generator: torch.Generator) -> Tensor:
    """Draw ε like x, on the CPU: a seed gives the same on every device."""
    import torch

    return torch.randn(x.shape, generator=generator, dtype=torch.float32).to(x)


def _kernels(width: Tensor, reach: int) -> Tensor:
    """Gaussians of deviations `width`, (B,), at −reach … reach, (B, 2·reach + 1), of Euclidean norm 1."""
    import torch

    place = torch.arange(-reach, reach + 1, dtype=width.dtype, device=width.device)
    kernel = torch.exp(-0.5 * (place / width.clamp_min(0.05)[:, None]).square())
    return kernel / kernel.norm(dim=1, keepdim=True)
