import pytest
import torch
from laws import pca, perturb
from torch import nn

from mfimage.config import ModelConfig
from mfimage.errors import ModelError
from mfimage.models import EncodedChart, image_chart
from mfimage.models.duals import Dual
from mfimage.models.encoders import image_encoder

SMALL = {"width": 4, "hidden": 16, "near": 6, "noise_width": 4}
SIZES = [(1, 27, 27), (3, 25, 33), (1, 64, 49), (3, 28, 28)]


def images(count=300, shape=(1, 12, 10)):
    """Images near a curved two-dimensional manifold."""
    angle = 6.28 * torch.rand(count, 1)
    basis = torch.randn(3, torch.Size(shape).numel()) / 8
    curve = torch.cat([angle.cos(), angle.sin(), (2 * angle).sin()], 1) @ basis
    return (0.5 + curve + 0.01 * torch.randn_like(curve)).view(-1, *shape).clamp(0, 1)


def moved(shape, **settings):
    """A chart of images away from where it starts."""
    torch.manual_seed(0)
    chart = image_chart(ModelConfig(shape, 3, **SMALL, **settings))
    chart.initialise(images(60, shape))
    return perturb(chart, 0.3)


@pytest.mark.parametrize("settings", [{}, {"steps": 0}, {"bends": 2}, {"near": 200}], ids=str)
def test_training_starts_at_the_principal_components(settings):
    x = images()
    chart = image_chart(ModelConfig((1, 12, 10), 3, **SMALL | settings))
    chart.initialise(x)
    torch.testing.assert_close(chart.decode(chart.codes(x)), pca(x, 3), atol=1e-4, rtol=0)


def test_few_images_give_the_principal_components_that_there_are():
    x = images(20)
    chart = image_chart(ModelConfig((1, 12, 10), 3, **SMALL | {"near": 50}))
    chart.initialise(x)
    torch.testing.assert_close(chart.decode(chart.codes(x)), pca(x, 3), atol=1e-4, rtol=0)
    basis = chart.subspace.rotation.basis
    assert basis.shape == (120, 53)
    torch.testing.assert_close(basis.T @ basis, torch.eye(53), atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 5, 7), (2, 9, 16), (2, 1, 2)])
def test_any_shape_comes_back(shape):
    x = torch.rand(4, *shape)
    chart = image_chart(ModelConfig(shape, 1, levels=2, width=4, hidden=8))
    z, _ = perturb(chart, 0.2)(x)
    assert z.shape == (4, chart.features)
    torch.testing.assert_close(chart.inverse(z)[0], x, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-4), (torch.float64, 1e-9)], ids=str)
def test_images_of_any_size_have_exact_codes(shape, dtype, most):
    """Whatever the sides: codes of what they decode to, images of their coordinates, projections twice."""
    chart, x = moved(shape).to(dtype), images(4, shape).to(dtype)
    with torch.no_grad():
        u, (z, ladj) = chart.codes(x), chart(x)
        on = chart.decode(u)
        assert (chart.codes(on) - u).abs().max() < most * u.abs().max().clamp_min(1)
        assert (chart.decode(chart.codes(on)) - on).abs().max() < most
        back, back_ladj = chart.inverse(z)
        assert (back - x).abs().max() < most
        assert (ladj + back_ladj).abs().max() < 100 * most
        assert (on - x).abs().max() > 0.1


def test_a_fixed_rotation_has_no_gradient_and_follows_its_weights():
    chart = moved((1, 8, 8))
    assert not any("rotation" in name for name, _ in chart.named_parameters())
    x, other = images(5, (1, 8, 8)), moved((1, 8, 8))
    other.initialise(images(50, (1, 8, 8)))
    before = other.codes(x)
    other.load_state_dict(chart.state_dict())
    assert torch.equal(other.codes(x), chart.codes(x))
    assert (other.codes(x) - before).abs().max() > 1e-3


@pytest.mark.parametrize("settings", [{"steps": 0}, {"steps": 0, "bends": 2}, {"steps": 0, "bends": 0}, {}])
def test_the_squared_error_is_that_of_the_projection(settings):
    chart, x = moved((1, 9, 8), **settings).double(), images(5, (1, 9, 8)).double()
    expected = (chart.decode(chart.codes(x)) - x).square().flatten(1).sum(1)
    torch.testing.assert_close(chart.squared_error(x), expected, atol=1e-10, rtol=1e-10)


def test_dropout_is_of_training_alone():
    chart, x = moved((1, 8, 8), dropout=0.3), images(5, (1, 8, 8))
    assert torch.equal(chart.codes(x), chart.codes(x))
    chart.train()
    assert not torch.equal(chart.codes(x), chart.codes(x))
    assert not torch.equal(chart.decode(torch.zeros(1, 3)), chart.decode(torch.zeros(1, 3)))


def test_clearing_does_nothing_without_noise_and_moves_no_value_far():
    chart, x = moved((2, 9, 8), noise_aware=True).double(), torch.rand(4, 2, 9, 8, dtype=torch.double)
    perturb(chart.denoiser, 3.0, seed=2)
    sigma = torch.tensor([0.0, 0.1, 0.2, 0.5], dtype=torch.double)
    change = (chart.clear(x, sigma) - x).flatten(1).abs().amax(1)
    assert change[0] == 0
    assert (change[1:] > sigma[1:]).all()
    assert (change <= 5.001 * sigma).all()


def test_noise_is_one_number_an_image_or_one_a_place():
    chart, x = moved((2, 9, 8), noise_aware=True).double(), torch.rand(3, 2, 9, 8, dtype=torch.double)
    sigma = torch.tensor([0.05, 0.1, 0.4], dtype=torch.double)
    everywhere = sigma.view(3, 1, 1, 1).expand(3, 1, 9, 8)
    torch.testing.assert_close(chart.clear(x, everywhere), chart.clear(x, sigma))
    torch.testing.assert_close(chart.clear(x[1:2], sigma[1:2]), chart.clear(x, sigma)[1:2])
    half = everywhere.clone()
    half[..., :4] = 0
    cleared = chart.clear(x, half)
    assert torch.equal(cleared[..., :4], x[..., :4])
    assert (cleared[..., 4:] - x[..., 4:]).abs().amax() > 1e-3


def test_a_window_is_cleared_with_what_all_of_the_image_tells():
    chart, x = moved((1, 16, 12), noise_aware=True).double(), torch.rand(3, 1, 16, 12, dtype=torch.double)
    sigma, window = torch.full((3,), 0.2, dtype=torch.double), (slice(3, 11), slice(0, 9))
    chart.denoiser.net = Spy(seen := [])
    found = chart.clear(x, sigma, window)
    torch.testing.assert_close(found, chart.clear(x, sigma)[..., 3:11, 0:9])
    assert torch.equal(seen[0], seen[1][..., 3:11, 0:9])


def test_the_linear_estimate_is_the_best_one():
    """Of images whose covariance is known: x̂ = C (C + σ²)⁻¹ y."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(36, 36, dtype=torch.double, generator=generator) / 6
    x = (torch.randn(40000, 36, dtype=torch.double, generator=generator) @ mixing).view(-1, 1, 6, 6)
    chart = image_chart(ModelConfig((1, 6, 6), 3, noise_aware=True, **{**SMALL, "near": 33})).double()
    chart.initialise(x)
    chart.initialise_denoiser(x)
    y, seen = x[:5] + 0.3, []
    chart.denoiser.net = Spy(seen)
    chart.clear(y, torch.full((5,), 0.3, dtype=torch.double))
    covariance = mixing.T @ mixing
    expected = y.flatten(1) @ torch.linalg.solve(
        covariance + 0.09 * torch.eye(36, dtype=torch.double), covariance
    )
    centred = expected - expected.mean(1, keepdim=True)
    torch.testing.assert_close(seen[0][:, 0].flatten(1), y.flatten(1) - expected, atol=0.03, rtol=0)
    torch.testing.assert_close(seen[0][:, 1].flatten(1), centred, atol=0.03, rtol=0)
    assert (seen[0][:, 2] == 0.3).all()


class Spy(nn.Module):
    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def forward(self, x):
        self.seen.append(x)
        return x[:, :1]


def test_shrinking_without_noise_is_the_identity_where_nothing_is_dropped():
    chart, x = moved((1, 10, 9), noise_aware=True).double(), torch.rand(4, 1, 10, 9, dtype=torch.double)
    with torch.no_grad():
        chart.denoiser.gains.level.fill_(9.0)
    none, much = (torch.full((4,), sigma) for sigma in (0.0, 9.0))
    torch.testing.assert_close(chart.shrink(chart.clear(x, none), none), x, atol=1e-6, rtol=0)
    assert (chart.shrink(chart.clear(x, much), much) - x).abs().mean() > 1e-2


@pytest.mark.parametrize("encoded", [False, True])
def test_gains_are_the_filter_of_wiener_of_what_is_left(encoded):
    torch.manual_seed(0)
    x, sigma = images(900, (1, 8, 8)), torch.full((900,), 0.2)
    chart = image_chart(ModelConfig((1, 8, 8), 3, noise_aware=True, **SMALL))
    model = EncodedChart(image_encoder((1, 8, 8), 3, 2, 1), chart) if encoded else chart
    model.initialise(x)
    model.initialise_denoiser(x)
    noisy = x + 0.2 * torch.randn_like(x)
    cleared = model.clear(noisy, sigma)
    torch.testing.assert_close(model.shrink(cleared, sigma), cleared, atol=1e-5, rtol=0)
    model.fit_gains(x)
    z, noisy_z = chart(x)[0], chart(cleared)[0]
    best = (z * noisy_z).sum(0) / noisy_z.square().sum(0)
    gains = chart.denoiser.gains(torch.ones(1, 64), sigma[:1])[0]
    torch.testing.assert_close(gains, best.clamp(0, 1), atol=0.1, rtol=0)
    assert (gains < 0.9).any()
    left = [(done - x).square().sum() for done in (model.shrink(cleared, sigma), cleared)]
    assert left[0] < left[1]


def test_log_densities_and_codes_do_not_ask_what_removes_noise():
    chart, x = moved((1, 8, 8), noise_aware=True), images(4, (1, 8, 8))
    before = chart.codes(x), chart(x)[1], chart.clear(x, torch.full((4,), 0.2))
    perturb(chart.denoiser, 0.3, seed=1)
    assert torch.equal(chart.codes(x), before[0])
    assert torch.equal(chart(x)[1], before[1])
    assert (chart.clear(x, torch.full((4,), 0.2)) - before[2]).abs().max() > 1e-3


def test_a_chart_without_a_denoiser_cannot_shrink():
    chart, x = image_chart(ModelConfig((1, 8, 8), 3)), torch.rand(1, 1, 8, 8)
    for use in (lambda: chart.shrink(x, torch.ones(1)), lambda: chart.initialise_denoiser(x)):
        with pytest.raises(ModelError, match="train one that is told of it"):
            use()


def test_a_centred_chart_leaves_nothing_in_the_mean_and_stays_a_bijection():
    chart, x = moved((2, 9, 8)).double(), images(60, (2, 9, 8)).double()
    before = (x - chart.decode(chart.codes(x))).mean(0).abs().max()
    chart.centre(x)
    assert (x - chart.decode(chart.codes(x))).mean(0).abs().max() < 0.2 * before
    torch.testing.assert_close(chart.inverse(chart(x)[0])[0], x)
    u = chart.codes(x[:3])
    torch.testing.assert_close(chart.codes(chart.decode(u)), u)
    pushed = chart.push_codes(Dual(u, torch.eye(3, dtype=torch.double).expand(3, 3, 3)))
    torch.testing.assert_close(pushed.value, chart.decode(u))
