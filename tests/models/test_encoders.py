import pytest
import torch
from laws import pca, perturb

from mfimage.config import ModelConfig
from mfimage.models import (
    Autoencoder,
    EncodedChart,
    ProbabilisticAutoencoder,
    VectorChart,
    image_chart,
    latent_density,
)
from mfimage.models.encoders import image_decoder, image_encoder, vector_net

pytestmark = pytest.mark.usefixtures("double")
SHAPES = [(6,), (1, 8, 8), (3, 5, 7), (2, 9, 16)]
DIM = 3


def data(shape, count=60):
    """Points near a curved surface, with as much spread along the first directions as off them."""
    t = torch.rand(count, 2)
    curve = torch.cat([t, (3 * t).sin(), t[:, :1] * t[:, 1:]], 1)
    noise = 0.02 * torch.randn(count, *shape)
    return 0.5 + (curve @ torch.randn(5, torch.Size(shape).numel()) / 8).view(-1, *shape) + noise


def encoded(shape):
    if len(shape) == 1:
        return EncodedChart(vector_net(*shape, DIM, 16), VectorChart(*shape, DIM, 16, 2))
    chart = image_chart(ModelConfig(shape, DIM, levels=2, width=4, hidden=16, near=6))
    return EncodedChart(image_encoder(shape, DIM, 4, 2), chart)


def autoencoder(shape):
    if len(shape) == 1:
        nets = vector_net(*shape, DIM, 16), vector_net(DIM, *shape, 16)
    else:
        nets = image_encoder(shape, DIM, 4, 2), image_decoder(shape, DIM, 4, 2, 16)
    return Autoencoder(*nets, shape)


MAKERS = {"encoded": encoded, "autoencoder": autoencoder}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", MAKERS)
def test_training_starts_at_the_principal_components(kind, shape):
    chart, x = MAKERS[kind](shape), data(shape)
    chart.initialise(x)
    torch.testing.assert_close(chart.decode(chart.codes(x)), pca(x, DIM), atol=1e-9, rtol=0)
    assert (x - pca(x, DIM)).abs().max() > 0.01


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_an_encoder_starts_with_the_codes_of_the_chart(shape):
    chart, x = encoded(shape), data(shape)
    chart.initialise(x)
    torch.testing.assert_close(chart.codes(x), chart.chart.codes(x), atol=1e-9, rtol=0)
    perturb(chart.encoder, 0.3)
    assert (chart.codes(x) - chart.chart.codes(x)).abs().max() > 1e-3


@pytest.mark.parametrize("shape", [(6,), (3, 5, 7)], ids=str)
@pytest.mark.parametrize("kind", MAKERS)
def test_decoding_does_not_ask_the_encoder(kind, shape):
    chart, u = perturb(MAKERS[kind](shape), 0.2), torch.randn(4, DIM)
    before, codes = chart.decode(u), chart.codes(data(shape)[:4])
    perturb(chart.encoder, 0.5, seed=1)
    assert torch.equal(chart.decode(u), before)
    torch.manual_seed(0)
    assert (chart.codes(data(shape)[:4]) - codes).abs().max() > 1e-3


@pytest.mark.parametrize("shape", [(6,), (3, 5, 7)], ids=str)
def test_an_encoded_chart_decodes_as_its_chart(shape):
    chart, u = perturb(encoded(shape), 0.2), torch.randn(4, DIM)
    assert torch.equal(chart.decode(u), chart.chart.decode(u))


@pytest.mark.parametrize("shape", [(6,), (3, 5, 7)], ids=str)
@pytest.mark.parametrize("kind", MAKERS)
def test_the_networks_beside_the_linear_maps_see_scale_one(kind, shape):
    """Data in other units give codes and points in those units, also once the networks say something."""
    x, unit = data(shape), 1e3
    small, large = MAKERS[kind](shape), MAKERS[kind](shape)
    large.load_state_dict(small.state_dict())
    for chart, rows in ((small, x), (large, unit * x)):
        chart.initialise(rows)
        networks = [chart.encoder.net] if kind == "encoded" else [chart.encoder.net, chart.decoder.net]
        perturb(torch.nn.ModuleList(networks), 0.5)
    linear = small.encoder.linear(x.flatten(1))
    assert (small.codes(x) - linear).abs().max() > 0.1 * linear.std()
    torch.testing.assert_close(large.codes(unit * x), unit * small.codes(x), rtol=1e-6, atol=1e-6)
    u = torch.randn(4, DIM)
    torch.testing.assert_close(large.decode(unit * u), unit * small.decode(u), rtol=1e-6, atol=1e-5)


def test_every_parameter_of_an_autoencoder_learns():
    chart, x = autoencoder((3, 5, 7)), data((3, 5, 7))
    chart.initialise(x)
    perturb(chart, 0.2)
    (chart.decode(chart.codes(x)) - x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in chart.parameters())


@pytest.mark.parametrize("shape", [(6,), (1, 8, 8)], ids=str)
def test_a_probabilistic_autoencoder_samples_by_its_decoder(shape):
    model = ProbabilisticAutoencoder(autoencoder(shape), latent_density(DIM, 2, 8), shape)
    model.initialise(data(shape))
    x = model.sample(500, torch.Generator().manual_seed(0))
    noise = torch.randn(500, DIM, generator=torch.Generator().manual_seed(0), dtype=torch.float32).double()
    torch.testing.assert_close(x, model.chart.decode(model.density.push_forward(noise)))
    torch.testing.assert_close(x.mean(0), data(shape, 500).mean(0), atol=0.5, rtol=0)
