"""What models say of themselves, also those that were put together by hand."""

import doctest
import importlib
import pkgutil

import pytest
import torch
from nflows.transforms import CompositeTransform

from mfimage import models
from mfimage.config import ModelConfig
from mfimage.errors import UsageError
from mfimage.models import AmbientFlow, EncodedChart, ManifoldFlow, VectorChart, image_chart, latent_density
from mfimage.models.build import build
from mfimage.models.encoders import image_encoder


@pytest.mark.parametrize("noise", [False, True])
def test_capabilities_follow_from_the_parts(noise):
    chart = image_chart(ModelConfig((1, 8, 8), 3, width=2, hidden=8, noise_aware=noise))
    encoded = EncodedChart(image_encoder((1, 8, 8), 3, 2, 2), chart)
    for manifold in (chart, encoded):
        model = ManifoldFlow(manifold, latent_density(3, 1, 8, context=2 * noise), (1, 8, 8))
        assert model.noise_aware is noise
        assert model.conditional is noise
        assert model.context_features == 2 * noise
        assert model.has_manifold
        assert not model.has_ambient_density
        assert model.config is None
    assert not ManifoldFlow(VectorChart(5, 2), latent_density(2), (5,)).noise_aware


def test_a_chart_that_sees_parameters_makes_its_model_conditional():
    model = ManifoldFlow(VectorChart(5, 2, context=3), latent_density(2), (5,))
    assert model.context_features == 3
    with pytest.raises(UsageError, match="give its 3 parameters"):
        model.sample(1)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 7), (6,)])
@pytest.mark.parametrize("context", [0, 2])
def test_samples_are_the_same_bit_for_bit_for_any_batch_size(shape, context):
    model = build(ModelConfig(shape, 3, width=4, hidden=16, context=context), seed=1).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    theta = torch.randn(70, context, generator=torch.Generator().manual_seed(3)) if context else None
    first, *others = (model.sample(70, torch.Generator().manual_seed(0), n, theta) for n in (1, 7, 70, 256))
    assert first.shape == (70, *shape)
    assert len(first.unique(dim=0)) == 70
    assert all(torch.equal(first, other) for other in others)


def test_an_ambient_flow_is_told_its_parameters():
    model = AmbientFlow(CompositeTransform([]), (5,), 2)
    assert model.conditional
    assert not model.has_manifold
    assert model.has_ambient_density


def test_the_configuration_and_the_parts_agree():
    for kind in ("manifold-flow", "encoder-flow", "pie", "ambient-flow", "autoencoder"):
        assert build(ModelConfig((6,), 2, kind=kind, context=3)).context_features == 3
    assert build(ModelConfig((6,), 2, kind="linear", context=3)).context_features == 0


REPR = """\
ManifoldFlow: shape (1, 8, 8), d = 3, 38,492 parameters, noise-aware
  chart: ImageChart, 2,344 parameters
    multiscale: Multiscale, 240 parameters
    subspace: BentSubspace, 1,248 parameters
    denoiser: Denoiser, 856 parameters
  density: Density, 36,148 parameters"""


def test_repr_by_example():
    small = {"width": 2, "hidden": 8, "noise_width": 2, "density": "coupling", "density_steps": 1}
    config = ModelConfig((1, 8, 8), 3, noise_aware=True, **small)
    assert repr(build(config)) == REPR


@pytest.mark.parametrize("name", [m.name for m in pkgutil.iter_modules(models.__path__)])
def test_examples_of_docstrings(name):
    module = importlib.import_module(f"mfimage.models.{name}")
    assert doctest.testmod(module).failed == 0
