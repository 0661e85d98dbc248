import formulas
import numpy as np
import pytest
import torch

from mfimage.datasets.stylegan.layers import Colour, Convolution, activate, normalise, upsample


def randomise(module, generator):
    with torch.no_grad():
        for tensor in module.state_dict().values():
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
    return module


def arrays(module):
    return {k.replace(".", "_"): v.double().numpy() for k, v in module.state_dict().items()}


@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("limit", [None, 1.5])
@pytest.mark.parametrize("noise", [False, True])
def test_a_convolution_is_the_formula(up, limit, noise, generator):
    layer = randomise(Convolution(3, 4, 5, 10 if up else 5, up, limit), generator)
    x, w = torch.randn(2, 3, 5, 5, generator=generator), torch.randn(2, 5, generator=generator)
    given = layer(x, w, noise).detach().numpy()
    for image, row, ours in zip(x.double().numpy(), w.double().numpy(), given, strict=True):
        wanted = formulas.convolution(image, row, arrays(layer), up, limit or np.inf, noise)
        assert np.abs(ours - wanted).max() < 1e-5
        assert limit is None or np.abs(ours).max() == limit


def test_in_double_precision_it_is_the_formula_to_rounding(generator):
    layer = randomise(Convolution(3, 4, 5, 8, True, None).double(), generator)
    x, w = torch.randn(1, 3, 4, 4, dtype=torch.float64), torch.randn(1, 5, dtype=torch.float64)
    wanted = formulas.convolution(x[0].numpy(), w[0].numpy(), arrays(layer), True)
    assert np.abs(layer(x, w)[0].detach().numpy() - wanted).max() < 1e-12


@pytest.mark.parametrize("limit", [None, 0.5])
def test_colours_are_the_formula(limit, generator):
    layer = randomise(Colour(4, 3, 5, limit), generator)
    x, w = torch.randn(1, 4, 3, 3, generator=generator), torch.randn(1, 5, generator=generator)
    wanted = formulas.colour(x[0].double().numpy(), w[0].double().numpy(), arrays(layer), limit or np.inf)
    assert np.abs(layer(x, w)[0].detach().numpy() - wanted).max() < 1e-5


def test_upsampling_inserts_zeros_and_filters(generator):
    x = torch.randn(1, 3, 5, 5, generator=generator)
    assert np.abs(upsample(x)[0].numpy() - formulas.upsample(x[0].double().numpy())).max() < 1e-5
    inside = upsample(torch.ones(1, 1, 6, 6))[..., 1:-1, 1:-1]
    assert torch.allclose(inside, torch.ones_like(inside))


def test_normalise_and_activate_are_the_formulas(generator):
    x = 7 * torch.randn(3, 6, generator=generator)
    for row, ours in zip(x.double().numpy(), normalise(x).numpy(), strict=True):
        assert np.abs(ours - formulas.second_moment(row)).max() < 1e-5
    assert np.abs(activate(x).numpy() - formulas.activation(x.double().numpy(), np.inf)).max() < 1e-5


def test_demodulation_gives_unit_variance_whatever_the_style(generator):
    layer = randomise(Convolution(64, 8, 5, 32, False, None), generator)
    x = torch.randn(4, 64, 32, 32, generator=generator)
    with torch.no_grad():
        layer.bias.zero_()
        loud = layer(x, 100 * torch.randn(4, 5, generator=generator), False)
    variance = torch.where(loud > 0, loud / 2**0.5, loud / (0.2 * 2**0.5)).var((2, 3))  # before activation
    assert variance.min() > 0.7
    assert variance.max() < 1.4


def test_drawn_noise_follows_its_generator(generator):
    layer = randomise(Convolution(3, 4, 5, 6, False, None), generator)
    x, w = torch.randn(2, 3, 6, 6), torch.randn(2, 5)

    def drawn(seed):
        return layer(x, w, torch.Generator().manual_seed(seed))

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))
    assert not torch.equal(layer(x, w, True), layer(x, w, False))
