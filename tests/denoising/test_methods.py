import pytest
import torch

from mfimage import ModelConfig, build
from mfimage.denoising.methods import METHODS, leave, quick_methods, quick_results, wavelet_sigma
from mfimage.errors import ModelError

KINDS = ("manifold-flow", "encoder-flow", "pie", "ambient-flow", "autoencoder", "linear")
SMALL = {"width": 2, "noise_width": 2, "near": 16, "hidden": 8, "density_steps": 1, "density_width": 8}


def made(kind="manifold-flow", **changes):
    model = build(ModelConfig((1, 8, 8), 3, kind=kind, **SMALL, **changes)).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        x = torch.rand(50, 1, 8, 8, dtype=torch.double, generator=generator)
        model.initialise(x)
        if model.noise_aware:
            model.chart.initialise_denoiser(x)
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


@pytest.fixture
def y(generator):
    return torch.rand(4, 1, 8, 8, dtype=torch.double, generator=generator)


SIGMA = torch.tensor([0.05, 0.1, 0.2, 0.5], dtype=torch.double)


def test_projection_is_that_of_the_model_told_of_the_noise_if_it_can_be(y):
    model = made()
    torch.testing.assert_close(METHODS["projection"](y, model, SIGMA), model.decode(model.encode(y)))
    model = made(noise_aware=True)
    found = METHODS["projection"](y, model, SIGMA)
    torch.testing.assert_close(found, model.decode(model.encode(model.clear(y, SIGMA))))
    torch.testing.assert_close(model.project(found), found)  # it lies on the manifold


def test_refined_is_what_the_network_clears(y):
    model = made(noise_aware=True)
    refined = METHODS["refined"](y, model, SIGMA)
    torch.testing.assert_close(refined, model.chart.clear(y, SIGMA))
    assert (refined - y).flatten(1).abs().amax(1).min() > 1e-3


def test_left_alone_an_image_is_what_it_was(y):
    assert leave(y, made(), SIGMA) is y


@pytest.mark.parametrize("kind", ["manifold-flow", "encoder-flow"])
def test_soft_shrinks_the_coordinates_of_what_is_cleared(kind, y):
    model = made(kind, noise_aware=True)
    chart = model.chart if kind == "manifold-flow" else model.chart.chart
    z = chart(chart.clear(y, SIGMA))[0]
    gains = chart.denoiser.gains
    gain = torch.sigmoid(gains.level - gains.log_slope.exp() * SIGMA.log()[:, None])
    torch.testing.assert_close(METHODS["soft"](y, model, SIGMA), chart.inverse(gain * z)[0])


def test_soft_returns_the_image_without_noise_and_the_centre_of_the_chart_at_its_end(y):
    model = made(noise_aware=True)
    with torch.no_grad():
        model.chart.denoiser.gains.level.fill_(0)
    clean = METHODS["soft"](y, model, torch.zeros(4, dtype=torch.double))
    assert (clean - y).abs().max() < 1e-2
    far = METHODS["soft"](y, model, torch.full((4,), 1e9, dtype=torch.double))
    torch.testing.assert_close(far, model.decode(torch.zeros(4, 3, dtype=torch.double)), atol=1e-6, rtol=0)


def test_soft_takes_the_noise_of_each_image(y):
    model = made(noise_aware=True)
    alone = torch.cat([METHODS["soft"](y[i : i + 1], model, SIGMA[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(METHODS["soft"](y, model, SIGMA), alone)


@pytest.mark.parametrize("kind", ["pie", "ambient-flow"])
def test_tweedie_is_a_step_along_the_gradient_of_the_density(kind, y):
    model = made(kind)
    moved = (METHODS["tweedie"](y, model, SIGMA) - y) / SIGMA.view(-1, 1, 1, 1) ** 2
    direction = torch.randn(y.shape, dtype=torch.double, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        difference = (model.log_prob(y + 1e-5 * direction) - model.log_prob(y - 1e-5 * direction)) / 2e-5
    torch.testing.assert_close((moved * direction).flatten(1).sum(1), difference, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("method", "kind", "message"),
    [
        ("projection", "ambient-flow", "no manifold"),
        ("soft", "manifold-flow", "--noise 0-0.5"),
        ("soft", "encoder-flow", "--noise 0-0.5"),
        ("soft", "ambient-flow", "--noise 0-0.5"),
        ("tweedie", "manifold-flow", "density on the whole space"),
        ("map", "ambient-flow", "density on"),
    ],
)
def test_a_model_that_lacks_what_a_method_needs_says_so(method, kind, message, y):
    with pytest.raises(ModelError, match=message):
        METHODS[method](y, made(kind), SIGMA)


@pytest.mark.parametrize("kind", KINDS)
def test_quick_methods_are_those_that_work(kind, y):
    model = made(kind)
    for method in ("projection", "refined", "soft", "tweedie"):
        if method in quick_methods(model):
            assert METHODS[method](y, model, SIGMA).shape == y.shape
        else:
            with pytest.raises(ModelError):
                METHODS[method](y, model, SIGMA)
    for aware in ("manifold-flow", "encoder-flow"):
        methods = quick_methods(made(aware, noise_aware=True))
        assert methods == ["projection", "refined", "soft"]


@pytest.mark.parametrize("aware", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_all_quick_results_at_once_are_those_one_by_one(kind, aware, y):
    model = made(kind, noise_aware=aware and kind in ("manifold-flow", "encoder-flow"))
    found = quick_results(y, model, SIGMA)
    assert list(found) == quick_methods(model)
    for name, image in found.items():
        torch.testing.assert_close(image, METHODS[name](y, model, SIGMA))


@pytest.mark.parametrize("sigma", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("channels", [1, 3])
def test_pure_noise_is_measured(sigma, channels, generator):
    y = 0.5 + sigma * torch.randn(50, channels, 28, 28, generator=generator)
    found = wavelet_sigma(y)
    assert found.shape == (50,)
    assert found.mean() == pytest.approx(sigma, rel=0.02)
    assert found.std() < 0.1 * sigma


def test_edges_and_slopes_are_no_noise():
    rows, columns = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    slope, edge = (rows + 2 * columns) / 84, (rows > columns).float()
    assert wavelet_sigma(torch.stack([slope, edge])[:, None]).max() < 1e-6


def test_overlapping_blocks_tell_more_than_separate_ones(generator):
    y = torch.randn(400, 1, 28, 28, generator=generator)
    a, b, c, d = y[..., ::2, ::2], y[..., 1::2, ::2], y[..., ::2, 1::2], y[..., 1::2, 1::2]
    separate = ((a - b - c + d) / 2).flatten(1).abs().median(1).values / 0.6745
    assert wavelet_sigma(y).std() < 0.8 * separate.std()


@pytest.mark.parametrize("shape", [(1, 400), (400, 1), (3, 1, 400)])
def test_the_noise_of_one_row_or_column_is_measured(shape, generator):
    y = 0.5 + 0.1 * torch.randn(50, *(1,) * (3 - len(shape)), *shape, generator=generator)
    assert wavelet_sigma(y).mean() == pytest.approx(0.1, rel=0.02)
    assert wavelet_sigma(y[..., :1, :1]).tolist() == [0.0] * 50
