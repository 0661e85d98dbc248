"""The interface of models."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from mfimage.config import ModelConfig
from mfimage.errors import ModelError, UsageError
from mfimage.models.charts import NO_GAINS
from mfimage.models.classes import Classifier, noise_of_class
from mfimage.models.density import Density
from mfimage.models.detail import draw_detail
from mfimage.models.layers import in_rows, leading
from mfimage.models.sharpening import NOT_SHARP
from mfimage.modes import plainly
from mfimage.settings import is_number, whole_number


class GenerativeModel(nn.Module):
    """Interface of models.

    Args:
        shape: Of the data: (C, H, W) for images, (D,) for vectors.
        dim: Length of the codes u and of the base noise.
        context_features: Number of parameters θ on which it is conditioned; 0 for none.
    """

    has_manifold = True  # it has fewer coordinates than the data, so that projection changes an image
    has_ambient_density = False  # `log_prob` is a density on the whole space R^D, not on a manifold in it
    has_manifold_density = False  # `log_prob` is a density per volume on the manifold
    noise_aware = False  # the chart can remove noise too, as `ImageChart.shrink` does
    config: ModelConfig | None  # what it was built from; None for one put together by hand
    measured: dict[str, Any]  # what was measured of it after training, as JSON takes it; saved with it
    classifier: Classifier | None  # of codes, where the classes of the images were learned
    sharpener: nn.Module | None  # what draws its codes sharply, see `sharpened`, where that was learned

    def __init__(self, shape: tuple[int, ...], dim: int, context_features: int = 0) -> None:
        super().__init__()
        self.shape, self.dim, self.context_features = tuple(shape), dim, context_features
        self.config, self.measured, self.classifier, self.sharpener = None, {}, None, None

    @property
    def conditional(self) -> bool:
        """Whether the density depends on parameters θ, which are then to be given as context."""
        return self.context_features > 0

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self.parameters()).device

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Project data onto the manifold; the same as `project`."""
        return self.project(x, context)

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

    def project(
        self,
        x: Tensor,
        context: Tensor | None = None,
        sigma: Tensor | float | None = None,
        dim: int | None = None,
    ) -> Tensor:
        """Project data onto the manifold: x̂ = decode(encode(x)).

        Codes of noisy images hold the noise too; told of it, a noise-aware model removes it on the way,
        x̂ = decode(encode(clear(x, σ))), which lies on the manifold as ever.

        Args:
            x: Data (B, …), images in [0, 1] or with noise around that.
            context: θ, shape (B, P), for a conditional model.
            sigma: Deviation of the noise, one or an image each, (B,), in units of the data.
            dim: Onto the manifold of the first so many codes alone, of a model that learned nested ones.

        Raises:
            UsageError: If dim is not among 1 … d.
            ModelError: If sigma is given, and the model was not trained with noise; or dim, and not nested.
        """
        u = self.encode(x if sigma is None else self.clear(x, sigma), context)
        return self.decode(self._cut(u, dim), context)

    def _cut(self, u: Tensor, dim: int | None) -> Tensor:
        """Keep the leading codes, see `project`."""
        if dim is None:
            return u
        if self.config is None or not self.config.nested:
            raise ModelError(
                "this model did not learn nested codes: mfimage train --nested makes one that does"
            )
        if whole_number("dim", dim, 1) > self.dim:
            raise UsageError(f"dim must lie in 1 … {self.dim}, not {dim}")
        return leading(u, dim)

    def sharpened(self) -> GenerativeModel:
        """Return the model whose manifold is drawn sharply: the same codes and density, sharing all parts.

        Its methods are those of any model: `project`, `log_prob`, with the volume of its own decoder, and so
        on. What it draws looks more like the data, and its squared error is larger.

        Raises:
            ModelError: If that was not learned.
        """
        raise ModelError(NOT_SHARP)

    @property
    def shown(self) -> GenerativeModel:
        """What draws the pictures that are shown: `sharpened`, or this itself where that was not learned."""
        return self if self.sharpener is None else self.sharpened()

    def clear(self, y: Tensor, sigma: Tensor | float) -> Tensor:
        """Remove noise from images (B, C, H, W), not onto the manifold; ModelError if it was not learned.

        Args:
            y: Noisy images, clean ones lie in [0, 1].
            sigma: Deviation of the noise, one, an image each, (B,), or a place each, (B, 1, H, W).
        """
        raise ModelError(NO_GAINS)

    @plainly
    @torch.no_grad()
    def sample(
        self,
        n: int,
        generator: torch.Generator | None = None,
        batch_size: int = 256,
        context: Tensor | None = None,
        detail: float = 0.0,
        temperature: float = 1.0,
        label: str | int | None = None,
        dim: int | None = None,
        sharp: bool = True,
    ) -> Tensor:
        """Draw from the model.

        All noise is drawn first, on the CPU: a seed gives the same samples for every batch size, on a CPU bit
        for bit, and for every device and number of threads up to rounding. The noise of detail follows from
        a number an image, drawn after that.

        Args:
            n: How many, ≥ 0.
            generator: Source of randomness; the global one if None.
            batch_size: How many are decoded at a time on a GPU; on a CPU the shape alone decides.
            context: θ of each, shape (n, P), or of all, (1, P).
            detail: σ from which a model of images that learned to remove noise draws what its manifold leaves
                out, see `detail.draw_detail`: the images then lie near the manifold, not on it, and come from
                no density that is known. 0: the model's own samples.
            temperature: Factor of the base noise; below 1 samples are more usual, and less varied, than the
                model's density has them.
            label: A class, by its name or number, of a model that learned classes: draws are kept with the
                chance that their codes are of it, p(c|u), and so come from p(u|c). Another device may keep
                others, by rounding.
            dim: Draw from the first so many codes alone, see `project`.
            sharp: Whether what has learned to draw sharply does, see `sharpened`.

        Returns:
            Shape (n, …), images not clipped to [0, 1].

        Raises:
            UsageError: If a conditional model is given no context, detail is negative, or temperature not
                positive, or dim is not among 1 … d.
            ModelError: If detail is asked of a model that did not learn noise, dim of one that did not learn
                nested codes, or a label of one that did not learn classes, or hardly ever draws this one.
        """
        if not (is_number(detail) and detail >= 0):
            raise UsageError(f"detail is a deviation σ ≥ 0 of noise, not {detail!r}")
        if not (is_number(temperature) and temperature > 0):
            raise UsageError(f"temperature is a factor above 0 of the base noise, not {temperature!r}")
        if self.conditional and context is None:
            raise UsageError(f"a conditional model: give its {self.context_features} parameters as context")
        weight = next(self.parameters())
        if label is None:
            shape = n, self.dim
            noise = torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu") * temperature
        else:
            classifier, number = self._known_classifier(), self.class_number(label)
            noise = noise_of_class(
                lambda z: classifier(self.push_forward(z.to(weight)))[:, number],
                n, self.dim, generator, temperature,
            )  # fmt: skip
        if n == 0:
            return noise.new_empty(0, *self.shape)
        drawing = self.shown if sharp else self
        seeds = torch.randint(2**62, (n if detail else 0,), generator=generator, device="cpu")

        def draw(rows: Tensor, theta: Tensor | None) -> Tensor:
            x = drawing.decode(self._cut(self.push_forward(noise[rows].to(weight), theta), dim), theta)
            return draw_detail(self.clear, x, detail, seeds[rows]) if detail else x

        blocks = weight.device.type == "cpu"
        size = _block(self.shape) if blocks else batch_size
        rows = torch.arange(-(-n // size) * size if blocks else n).clamp_max(n - 1)  # the last one fills them
        theta = None if context is None else context.to(weight).expand(n, -1)[rows]
        return in_rows(draw, rows, theta, size)[:n]

    @plainly
    def classify(self, x: Tensor) -> Tensor:
        """Compute log p(c|u) of the classes of images (B, C, H, W), from their codes: (B, K).

        Raises:
            ModelError: If the model did not learn classes.
        """
        return self._known_classifier()(self.encode(x))

    def class_number(self, label: str | int) -> int:
        """Find a class by its name or number; UsageError for another, ModelError where none were learned."""
        return self._known_classifier().number(label)

    def _known_classifier(self) -> Classifier:
        if self.classifier is None:
            raise ModelError("this model did not learn classes: mfimage train --classes makes one that does")
        return self.classifier

    def __repr__(self) -> str:
        """Show the kind, the shape of the data, d, and the parts with their sizes."""
        words = [f"shape {self.shape}", f"d = {self.dim}", _size(self)]
        words += [f"given {self.context_features} θ"] if self.conditional else []
        words += ["noise-aware"] if self.noise_aware else []
        words += ["sharpened samples"] if self.sharpener is not None else []
        words += [f"{len(self.classifier.classes)} classes"] if self.classifier else []
        return "\n  ".join([f"{type(self).__name__}: {', '.join(words)}", *_outline(self, 2)])


def _block(shape: tuple[int, ...]) -> int:
    """How many samples are decoded at a time on a CPU: sums over batches of other sizes round differently."""
    return 512 if len(shape) == 1 else max(1, min(128, 2**18 // math.prod(shape)))


def _size(module: nn.Module) -> str:
    return f"{sum(p.numel() for p in module.parameters()):,} parameters"


def _outline(module: nn.Module, depth: int) -> Iterator[str]:
    """A line for each part, and its own parts (of h not) below it."""
    for name, part in module.named_children():
        if name.startswith("_"):  # a container of nflows
            yield from _outline(part, depth)
        else:
            yield f"{name}: {type(part).__name__}, {_size(part)}"
            if depth > 1 and not isinstance(part, Density):
                yield from (f"  {line}" for line in _outline(part, depth - 1))
