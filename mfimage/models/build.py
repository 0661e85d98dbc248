"""From a configuration to a model: the one place that knows which parts make which."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from mfimage.config import KindName, ModelConfig
from mfimage.models.base import GenerativeModel
from mfimage.models.bent import BentSubspace
from mfimage.models.charts import Chart, ImageChart
from mfimage.models.classes import Classifier
from mfimage.models.denoiser import Denoiser, Gains, UNet, Wiener
from mfimage.models.density import Density, Parted, latent_density
from mfimage.models.encoders import Autoencoder, EncodedChart, image_decoder, image_encoder, vector_net
from mfimage.models.flow import PIE, AmbientFlow, ManifoldFlow, ProbabilisticAutoencoder
from mfimage.models.layers import ActNorm, CompositeTransform
from mfimage.models.multiscale import LevelCouplings, Multiscale
from mfimage.models.nets import ConvNet, LinearPlus
from mfimage.models.pairs import DensePair
from mfimage.models.sharpening import SmoothUNet
from mfimage.models.vectors import Spherical, VectorChart
from mfimage.models.wavelets import Wavelets
from mfimage.modes import Making, plainly

_CHANNELS = 8  # at full size, of a separate encoder or decoder of images
_WIDER = (1, 2, 3, 4)  # channels of the network that removes noise at each size, in units of noise_width
_SHARPER = (1, 3, 6, 12)  # the same of that which sharpens, in units of sharp_width


def build(config: ModelConfig, seed: int = 0) -> GenerativeModel:
    """Make a model in evaluation mode with seeded weights, in float32 on the CPU.

    The global random state, the default type and the like are neither used nor changed.

    >>> build(ModelConfig((1, 28, 28), dim=16)).sample(2).shape
    torch.Size([2, 1, 28, 28])
    """
    return _made(config, Making(torch.Generator().manual_seed(seed)))


def outline(config: ModelConfig, most: int) -> GenerativeModel:
    """Make a model of shapes alone, which costs no memory; UsageError if it would hold more than `most`."""
    return _made(config, Making(most=most))


def allocate(model: GenerativeModel) -> GenerativeModel:
    """Give an outline memory, whatever that holds: every weight must be overwritten."""
    return model._apply(lambda tensor: torch.empty_like(tensor, device="cpu") if tensor.is_meta else tensor)


@plainly
def _made(config: ModelConfig, how: Making) -> GenerativeModel:
    with how:
        model = KINDS[config.kind](config)
        if config.classes:
            classes, width = config.classes, config.density_width
            model.classifier = Classifier(config.dim, classes, width, config.dropout)
        if config.sharp:
            widths = [config.sharp_width * times for times in _SHARPER[: config.levels + 1]]
            model.sharpener = SmoothUNet(config.shape, widths)
    model.config = config
    return model.eval()


def _linear(c: ModelConfig) -> GenerativeModel:
    if c.images:
        straight: Chart = image_chart(replace(c, steps=0, bends=0))
    else:
        straight = VectorChart(math.prod(c.shape), c.dim, bends=0)
    return ManifoldFlow(straight, latent_density(c.dim, 0), c.shape)


def _ambient_flow(c: ModelConfig) -> GenerativeModel:
    """Join the M-flow's chart, splines on u, which alone see θ unless the chart does, and a scale for v."""
    parts = Parted(c.dim, _density(c).transform, ActNorm(math.prod(c.shape) - c.dim))
    return AmbientFlow(CompositeTransform([_chart(c), parts]), c.shape, c.context)


def _autoencoder(c: ModelConfig) -> GenerativeModel:
    if c.images:
        decoder = image_decoder(c.image_shape, c.dim, _CHANNELS, c.levels, c.hidden, c.dropout)
    else:
        decoder = vector_net(c.dim, math.prod(c.shape), c.hidden)
    return ProbabilisticAutoencoder(Autoencoder(_encoder(c), decoder, c.shape), _density(c), c.shape)


KINDS: dict[KindName, Callable[[ModelConfig], GenerativeModel]] = {
    "manifold-flow": lambda c: ManifoldFlow(_chart(c), _density(c), c.shape),
    "encoder-flow": lambda c: ManifoldFlow(EncodedChart(_encoder(c), _chart(c)), _density(c), c.shape),
    "linear": _linear,
    "sphere": lambda c: ManifoldFlow(Spherical(c.dim), _density(c), c.shape),
    "pie": lambda c: PIE(_chart(c), _density(c), c.shape, c.epsilon),
    "ambient-flow": _ambient_flow,
    "autoencoder": _autoencoder,
}


def _chart(c: ModelConfig) -> Chart:
    if c.images:
        return image_chart(c)
    return VectorChart(math.prod(c.shape), c.dim, c.hidden, c.bends, c.context if c.chart_context else 0)


def _encoder(c: ModelConfig) -> LinearPlus:
    if c.images:
        return image_encoder(c.image_shape, c.dim, _CHANNELS, c.levels)
    return vector_net(math.prod(c.shape), c.dim, c.hidden)


def _density(c: ModelConfig) -> Density:
    return latent_density(
        c.dim, c.density_steps or 0, c.density_width, c.density_bins, context=c.context,
        autoregressive=c.density == "autoregressive",
    )  # fmt: skip


def image_chart(c: ModelConfig) -> ImageChart:
    """Build an image chart, whose `initialise` must be called with training images."""
    wavelets, features = Wavelets(c.image_shape, c.levels), math.prod(c.shape)
    near = min(c.near, features - c.dim)
    dense = [DensePair(c.dim, near, c.hidden, c.dropout) for _ in range(c.bends if near else 0)]
    multiscale = Multiscale(wavelets, _couplings(wavelets, c.steps, c.width, 4, ConvNet))
    subspace, denoiser = BentSubspace(features, c.dim, dense), None
    if c.noise_aware:
        channels, widths = c.shape[0], [c.noise_width * times for times in _WIDER[: c.levels + 1]]
        net = UNet(2 * channels + 1, channels, widths)
        denoiser = Denoiser(Wiener(subspace.rank), Wiener(features), net, Gains(features))
    return ImageChart(multiscale, subspace, denoiser)


def _couplings(
    wavelets: Wavelets, rounds: int, width: int, most: int, net: type[ConvNet]
) -> list[LevelCouplings]:
    """Couplings of every level, the finest first; their networks' width doubles, up to so many times."""
    made = []
    for level in range(len(wavelets.haar)):
        of_width = partial(net, width=width * min(2**level, most))
        made.append(LevelCouplings(wavelets.shape[0], rounds, wavelets.mask(level), of_width))
    return made
