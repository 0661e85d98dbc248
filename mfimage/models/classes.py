"""The class of an image from its codes, and images of a class that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfimage.errors import ModelError, UsageError
from mfimage.models.layers import ActNorm
from mfimage.models.nets import MLP

RAREST = 1e-4  # chance of a class in what is drawn, below which nothing of it is
_AT_ONCE = 1024  # codes that are drawn together


class Classifier(nn.Module):
    """p(c|u), the chance of each class given the codes of an image.

    With the density of the codes it makes that of a class, p(u|c) ∝ p(u) p(c|u), by Bayes' rule: nothing
    else of a model changes.

    Args:
        dim: Length d of the codes.
        classes: Names of the K classes.
        width: Of the hidden layers.
        dropout: Rate at which their features are dropped in training.
    """

    def __init__(self, dim: int, classes: Sequence[str], width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.classes = tuple(classes)
        self.norm = ActNorm(dim)
        self.net = MLP(dim, len(classes), width, layers=2, dropout=dropout)

    def initialise(self, codes: Tensor) -> None:
        """Start from codes (N, d), which become inputs of zero mean and unit variance."""
        self.norm.initialise(codes)

    def forward(self, u: Tensor) -> Tensor:
        """Compute log p(c|u), (B, d) to (B, K)."""
        return F.log_softmax(self.net(self.norm(u)[0]), 1)

    def number(self, label: str | int) -> int:
        """Find a class by its name, or by its number, which may be text; UsageError if there is none such."""
        if label in self.classes:
            return self.classes.index(str(label))
        number = int(label) if isinstance(label, str) and label.isdecimal() else label
        if isinstance(number, int) and not isinstance(number, bool) and 0 <= number < len(self.classes):
            return number
        raise UsageError(f"no class {label!r}: there are {', '.join(self.classes)}")


@torch.no_grad()
def noise_of_class(
    log_chance: Callable[[Tensor], Tensor],
    n: int,
    dim: int,
    generator: torch.Generator | None = None,
    temperature: float = 1.0,
) -> Tensor:
    """Draw base noise whose codes are of a class, (n, d), exactly: each draw z is kept with p(c|u(z)).

    Args:
        log_chance: Noise (B, d) to log p(c|u), (B,).
        n: How many.
        dim: d.
        generator: Source of randomness, on the CPU; the global one if None.
        temperature: Factor of the noise.

    Raises:
        ModelError: If the class comes up less often than once in 10,000 draws.
    """
    kept: list[Tensor] = []
    drawn = found = 0
    while found < n:
        z = torch.randn(_AT_ONCE, dim, generator=generator, dtype=torch.float32, device="cpu") * temperature
        chance = log_chance(z).cpu().exp()
        kept.append(z[torch.rand(len(z), generator=generator, dtype=torch.float32, device="cpu") < chance])
        drawn, found = drawn + len(z), found + len(kept[-1])
        if drawn >= 10 / RAREST and found < RAREST * drawn:
            raise ModelError(f"the model hardly draws this class: {found} times in {drawn:,}")
    return torch.cat(kept)[:n] if kept else torch.empty(0, dim)
