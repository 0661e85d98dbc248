"""From a configuration to a model: the one place that knows which parts make which."""

from __future__ import annotations

from collections.abc import Callable

import torch
from nflows.transforms import CompositeTransform

from mfimage.config import KindName, ModelConfig
from mfimage.errors import UsageError
from mfimage.models import (
    PIE,
    AmbientFlow,
    Autoencoder,
    Chart,
    Density,
    EncodedChart,
    GenerativeModel,
    ManifoldFlow,
    ProbabilisticAutoencoder,
    Spherical,
    VectorChart,
    image_chart,
    latent_density,
)
from mfimage.models.charts import padding
from mfimage.models.couplings import Parted
from mfimage.models.encoders import LinearPlus, image_decoder, image_encoder, vector_net
from mfimage.models.layers import ActNorm


def build(config: ModelConfig, seed: int = 0) -> GenerativeModel:
    """Make a model with seeded initial weights; the global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = KINDS[config.kind](config)
    model.config = config
    return model


def _manifold_flow(c: ModelConfig) -> GenerativeModel:
    return ManifoldFlow(_chart(c), _density(c), c.shape)


def _linear(c: ModelConfig) -> GenerativeModel:
    if c.images:
        straight: Chart = image_chart(c.image_shape, c.dim, ((0, 0),), bends=0)
    else:
        straight = VectorChart(*_sizes(c), bends=0)
    return ManifoldFlow(straight, latent_density(c.dim, 0), c.shape)


def _encoder_flow(c: ModelConfig) -> GenerativeModel:
    return ManifoldFlow(EncodedChart(_encoder(c), _chart(c)), _density(c), c.shape)


def _sphere(c: ModelConfig) -> GenerativeModel:
    return ManifoldFlow(Spherical(c.dim), _density(c), c.shape)


def _pie(c: ModelConfig) -> GenerativeModel:
    _require_no_padding(c)
    return PIE(_chart(c), _density(c), c.shape, c.epsilon)


def _ambient_flow(c: ModelConfig) -> GenerativeModel:
    """Join the M-flow's chart, splines on u, which alone see θ unless the chart does, and a scale for v."""
    _require_no_padding(c)
    features, dim = _sizes(c)
    parts = Parted(dim, _density(c).transform, ActNorm(features - dim))
    return AmbientFlow(CompositeTransform([_chart(c), parts]), c.shape)


def _autoencoder(c: ModelConfig) -> GenerativeModel:
    features, dim = _sizes(c)
    if c.images:
        decoder = image_decoder(c.image_shape, dim, c.halvings, c.width, c.hidden)
    else:
        decoder = vector_net(dim, features, c.hidden)
    return ProbabilisticAutoencoder(Autoencoder(_encoder(c), decoder, c.shape), _density(c), c.shape)


KINDS: dict[KindName, Callable[[ModelConfig], GenerativeModel]] = {
    "manifold-flow": _manifold_flow,
    "encoder-flow": _encoder_flow,
    "linear": _linear,
    "sphere": _sphere,
    "pie": _pie,
    "ambient-flow": _ambient_flow,
    "autoencoder": _autoencoder,
}


def _require_no_padding(c: ModelConfig) -> None:
    """A density on the whole space must be one of the image, not of zeros around it."""
    if c.images and any(padding(*c.image_shape[1:], c.halvings)):
        raise UsageError(
            f"images of shape {c.shape} cannot be halved {c.halvings} times without padding, which a density "
            "on the whole space does not allow: choose another --size, or levels"
        )


def _sizes(c: ModelConfig) -> tuple[int, int]:
    return torch.Size(c.shape).numel(), c.dim


def _chart(c: ModelConfig) -> Chart:
    if c.images:
        return image_chart(c.image_shape, c.dim, c.levels, c.keep, c.width, c.hidden, c.bends, c.noise_aware)
    return VectorChart(*_sizes(c), c.hidden, c.bends, c.context if c.chart_context else 0)


def _encoder(c: ModelConfig) -> LinearPlus:
    if c.images:
        return image_encoder(c.image_shape, c.dim, c.halvings, c.width, c.hidden)
    return vector_net(*_sizes(c), c.hidden)


def _density(c: ModelConfig) -> Density:
    return latent_density(c.dim, c.density_steps, c.density_width, context=c.context)
