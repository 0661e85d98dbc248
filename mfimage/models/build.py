"""From a configuration to a model: the one place that knows which parts make which."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from mfimage.config import KindName, ModelConfig
from mfimage.errors import UsageError
from mfimage.models.base import GenerativeModel
from mfimage.models.charts import Chart, ImageChart, Multiscale, Shape, padded
from mfimage.models.density import Density, Parted, latent_density
from mfimage.models.encoders import Autoencoder, EncodedChart, image_decoder, image_encoder, vector_net
from mfimage.models.flow import PIE, AmbientFlow, ManifoldFlow, ProbabilisticAutoencoder
from mfimage.models.layers import (
    ActNorm,
    AffineCoupling,
    CompositeTransform,
    Haar,
    OrthogonalConv1x1,
    Transform,
)
from mfimage.models.nets import ConvNet, Gains, LinearPlus
from mfimage.models.subspace import BentSubspace
from mfimage.models.vectors import Spherical, VectorChart


def build(config: ModelConfig, seed: int = 0) -> GenerativeModel:
    """Make a model with seeded initial weights; the global random state is left as it was.

    >>> build(ModelConfig((1, 28, 28), dim=16)).sample(2).shape
    torch.Size([2, 1, 28, 28])
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = KINDS[config.kind](config)
    model.config = config
    return model


def _linear(c: ModelConfig) -> GenerativeModel:
    if c.images:
        straight: Chart = image_chart(c.image_shape, c.dim, ((0, 0),), bends=0)
    else:
        straight = VectorChart(math.prod(c.shape), c.dim, bends=0)
    return ManifoldFlow(straight, latent_density(c.dim, 0), c.shape)


def _pie(c: ModelConfig) -> GenerativeModel:
    _require_no_padding(c)
    return PIE(_chart(c), _density(c), c.shape, c.epsilon)


def _ambient_flow(c: ModelConfig) -> GenerativeModel:
    """Join the M-flow's chart, splines on u, which alone see θ unless the chart does, and a scale for v."""
    _require_no_padding(c)
    parts = Parted(c.dim, _density(c).transform, ActNorm(math.prod(c.shape) - c.dim))
    return AmbientFlow(CompositeTransform([_chart(c), parts]), c.shape, c.context)


def _autoencoder(c: ModelConfig) -> GenerativeModel:
    if c.images:
        decoder = image_decoder(c.image_shape, c.dim, c.halvings, c.width, c.hidden)
    else:
        decoder = vector_net(c.dim, math.prod(c.shape), c.hidden)
    return ProbabilisticAutoencoder(Autoencoder(_encoder(c), decoder, c.shape), _density(c), c.shape)


KINDS: dict[KindName, Callable[[ModelConfig], GenerativeModel]] = {
    "manifold-flow": lambda c: ManifoldFlow(_chart(c), _density(c), c.shape),
    "encoder-flow": lambda c: ManifoldFlow(EncodedChart(_encoder(c), _chart(c)), _density(c), c.shape),
    "linear": _linear,
    "sphere": lambda c: ManifoldFlow(Spherical(c.dim), _density(c), c.shape),
    "pie": _pie,
    "ambient-flow": _ambient_flow,
    "autoencoder": _autoencoder,
}


def _require_no_padding(c: ModelConfig) -> None:
    """A density on the whole space must be one of the image, not of zeros around it."""
    if c.images and padded(c.image_shape, c.halvings)[1] != c.image_shape:
        raise UsageError(
            f"images of shape {c.shape} cannot be halved {c.halvings} times without padding, which a density "
            "on the whole space does not allow: choose another --size, or levels"
        )


def _chart(c: ModelConfig) -> Chart:
    if c.images:
        return image_chart(c.image_shape, c.dim, c.levels, c.keep, c.width, c.hidden, c.bends, c.noise_aware)
    return VectorChart(math.prod(c.shape), c.dim, c.hidden, c.bends, c.context if c.chart_context else 0)


def _encoder(c: ModelConfig) -> LinearPlus:
    if c.images:
        return image_encoder(c.image_shape, c.dim, c.halvings, c.width, c.hidden)
    return vector_net(math.prod(c.shape), c.dim, c.hidden)


def _density(c: ModelConfig) -> Density:
    return latent_density(c.dim, c.density_steps, c.density_width, context=c.context)


def image_chart(
    shape: Shape,
    dim: int,
    levels: Sequence[tuple[int, int]] = ((2, 1),),
    keep: float = 1.0,
    width: int = 24,
    hidden: int = 512,
    bends: int = 1,
    noise: bool = False,
) -> ImageChart:
    """Build an image chart.

    Args:
        shape: (C, H, W), any size.
        dim: d, 1 … C·H·W − 1.
        levels: For each level the number of Haar halvings and of coupling steps at the resolution reached.
        keep: Share of the channels that go on after each level but the last, in (0, 1].
        width: Hidden channels of the convolutional networks, in units; see `BentSubspace`.
        hidden: Features of their fully connected layers.
        bends: Pairs of networks that bend the subspace, 0 or more.
        noise: Whether the chart can `shrink` noise.

    Returns:
        A chart whose `initialise` must be called with training images.
    """
    pad, whole = padded(shape, sum(halvings for halvings, _ in levels))
    multiscale = _multiscale(whole, levels, keep, 2 * width, noise)
    features = math.prod(whole)
    subspace = BentSubspace(features, dim, multiscale.shapes[-1], width, hidden, bends)
    return ImageChart(pad, multiscale, subspace, Gains(features) if noise else None)


def _multiscale(
    shape: Shape, levels: Sequence[tuple[int, int]], keep: float, width: int, noise: bool
) -> Multiscale:
    channels, height, width_px = shape
    transforms, shapes, kept = [], [], []
    for level, (halvings, steps) in enumerate(levels):
        channels, height, width_px = channels * 4**halvings, height >> halvings, width_px >> halvings
        restore = level < len(levels) - 1  # where details leave, they must be the finest
        haar: list[Transform] = [Haar() for _ in range(halvings)]
        transforms.append(CompositeTransform(haar + coupling_steps(channels, steps, width, restore, noise)))
        shapes.append((channels, height, width_px))
        channels = max(1, round(channels * keep))
        kept.append(channels)
    return Multiscale(transforms, shapes, kept[:-1])


def coupling_steps(
    channels: int, steps: int, width: int, restore: bool, noise: bool = False
) -> list[Transform]:
    """[orthogonal 1×1, affine coupling with a `ConvNet`] × steps, on (B, channels, H, W).

    With `restore` a last orthogonal 1×1 brings the channels back into their order, coarse ones first. With
    `noise` the networks take features of noise as context.
    """
    half = channels // 2
    mixing = [OrthogonalConv1x1(channels) for _ in range(steps)]
    parts: list[Transform] = []
    for mix in mixing:
        parts += [mix, AffineCoupling(half, ConvNet(half, 2 * (channels - half), width, noise))]
    return [*parts, OrthogonalConv1x1(channels).undo(mixing)] if restore and steps else parts
