"""What every model can do, whatever it is made of."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mfimage.errors import UsageError


class GenerativeModel(nn.Module):
    """Interface of models: codes and points, a density, samples from noise.

    Attributes:
        shape: Of the data: (C, H, W) for images, (D,) for vectors.
        dim: Length of the codes u and of the base noise.
        settings: What a configuration knows of it; empty for one put together by hand.
        measured: What was found out about it after training, as JSON takes it; saved beside the weights.
    """

    shape: tuple[int, ...]
    dim: int
    settings: dict[str, Any]
    measured: dict[str, Any]

    def __init__(self, shape: tuple[int, ...], dim: int) -> None:
        super().__init__()
        self.shape, self.dim, self.settings, self.measured = tuple(shape), dim, {}, {}

    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """Start from data, shape (N, …) with N > d, and their θ, before any training."""
        raise NotImplementedError

    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map data (B, …), images in [0, 1], to codes u, shape (B, d)."""
        raise NotImplementedError

    def decode(self, u: Tensor, context: Tensor | None = None) -> Tensor:
        """Map codes u, shape (B, d), to data (B, …), not clipped to [0, 1]."""
        raise NotImplementedError

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Compute the model's log-density, shape (B,), in nats."""
        raise NotImplementedError

    def push_forward(self, noise: Tensor, context: Tensor | None = None) -> Tensor:
        """Turn base noise (B, d) into codes u, shape (B, d)."""
        raise NotImplementedError

    def project(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map data to the nearest that the model can say: x̂ = decode(encode(x))."""
        return self.decode(self.encode(x, context), context)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        generator: torch.Generator | None = None,
        batch_size: int = 256,
        context: Tensor | None = None,
    ) -> Tensor:
        """Draw from the model.

        All noise is drawn first, on the CPU: a seed gives the same samples for every batch size and device
        (up to the rounding of batched arithmetic).

        Args:
            n: How many, ≥ 0.
            generator: Source of randomness; the global one if None.
            batch_size: How many are decoded at a time.
            context: θ of each, shape (n, P), or of all, (1, P).

        Returns:
            Shape (n, …), images not clipped to [0, 1].

        Raises:
            UsageError: If a conditional model is given no context.
        """
        if self.settings.get("context") and context is None:
            raise UsageError(
                f"a conditional model: give its {self.settings['context']} parameters as context"
            )
        weight = next(self.parameters())
        noise = torch.randn(n, self.dim, generator=generator)
        theta = None if context is None else context.to(weight).expand(n, -1)
        drawn = []
        for start in range(0, n, batch_size):
            rows = slice(start, start + batch_size)
            part = None if theta is None else theta[rows]
            drawn.append(self.decode(self.push_forward(noise[rows].to(weight), part), part))
        return torch.cat(drawn) if drawn else torch.empty(0, *self.shape)
