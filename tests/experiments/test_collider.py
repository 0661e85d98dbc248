import math

import pytest
import torch

from mfimage.errors import UsageError
from mfimage.experiments.simulators import collider
from mfimage.experiments.simulators.collider import Collider, draw, joint_score, log_density
from mfimage.experiments.simulators.events import OBSERVABLES, momenta, quantities, wrap

ANGLES = slice(9, 13)
WHO = ("a1", "a2", "j1", "j2", "aa", "jj")
RESIDUALS = (
    *(f"pt {who}" for who in WHO),
    *(f"eta {who}" for who in WHO),
    *(f"on-shell {who}" for who in ("a1", "a2", "aa", "jj")),
    *(f"decay {what}_{pair}" for what in ("e", "px", "py", "pz") for pair in ("aa", "jj")),
    *(f"deltaeta {pair}" for pair in ("aa", "jj")),
)


@pytest.fixture(scope="module")
def simulator():
    return Collider()


@pytest.fixture(scope="module")
def truth():
    """θ of the prior and z drawn with it, float64."""
    generator = torch.Generator().manual_seed(7)
    theta = torch.randn(4000, 2, generator=generator, dtype=torch.float64)
    return theta, draw(theta, generator)


def apart(a, b):
    """Differences of quantities, angles the short way round."""
    difference = a.double() - b.double()
    difference[:, ANGLES] = wrap(difference[:, ANGLES])
    return difference.abs()


def test_names_have_the_order_of_the_columns():
    assert len(OBSERVABLES) == 40
    assert OBSERVABLES[17] == "eta_j1"
    assert OBSERVABLES[29] == "m_aa"
    assert OBSERVABLES[39] == "deltaeta_jj"


def test_samples_are_complete_and_repeatable(simulator):
    points = simulator.sample(50, torch.Generator().manual_seed(3))
    again = simulator.sample(50, torch.Generator().manual_seed(3))
    tensors = (points.x, points.theta, points.score, points.latents)
    assert [tuple(one.shape) for one in tensors] == [(50, 40), (50, 2), (50, 2), (50, 14)]
    assert all(one.dtype == torch.float32 and one.isfinite().all() for one in tensors)
    assert torch.equal(points.x, again.x)
    assert torch.equal(points.theta, again.theta)


def test_samples_are_standardised(simulator, generator):
    x = simulator.sample(20_000, generator).x
    assert x.mean(0).abs().max() < 0.04
    assert (x.std(0) - 1).abs().max() < 0.05


def test_one_theta_serves_all(simulator, generator):
    points = simulator.sample(5, generator, torch.tensor([[1.0, -2.0]]))
    assert points.theta.tolist() == [[1, -2]] * 5


def test_parameters_do_what_they_are_said_to(simulator, generator):
    low, high = (simulator.sample(4000, generator, torch.full((1, 2), t)).latents for t in (-1.0, 1.0))
    shift = (high - low).mean(0)
    assert shift[1] == pytest.approx(0.5, abs=0.04)
    assert shift[5] == pytest.approx(0.4, abs=0.04)
    assert high[:, 12].cos().mean() == pytest.approx(math.tanh(0.4), abs=0.04)
    assert low[:, 12].cos().mean() == pytest.approx(-math.tanh(0.4), abs=0.04)


def test_events_look_like_weak_boson_fusion(simulator, generator):
    z = simulator.sample(4000, generator).latents
    assert z[:, 0].exp().mean() == pytest.approx(125, abs=0.2)
    assert z[:, 0].exp().std() == pytest.approx(2.5, abs=0.1)
    eta = torch.stack([z[:, 6] + z[:, 13] / 2, z[:, 6] - z[:, 13] / 2])
    assert (eta.prod(0) < 0).double().mean() > 0.9  # opposite hemispheres
    assert (z[:, 13] > 0).double().mean() == pytest.approx(0.5, abs=0.03)


def test_all_relations_hold(simulator, truth):
    _, z = truth
    x = simulator.embed(z)
    assert simulator.closure(x).max() < 1e-9
    assert simulator.distance(x).max() < 1e-9
    single = x.float()
    assert simulator.closure(single).max() < 0.02  # GeV, of energies up to 1e4
    assert simulator.distance(single).max() < 1e-5


def test_every_observable_is_tested(simulator, truth):
    event = simulator.embed(truth[1][:1])
    moved = simulator.distance(event + 0.5 * torch.eye(40, dtype=torch.float64))
    assert moved.min() > 1e-5  # m_aa: 1 GeV hardly shows in the on-shell condition
    assert (moved > 1e-3).sum() == 39


def test_each_residual_is_the_published_one(simulator):
    raw = torch.linspace(-90, 80, 40, dtype=torch.float64)[None] * torch.tensor([[1.0], [0.3]])
    mean, std = collider._scales()
    found = dict(zip(RESIDUALS, simulator.closure((raw - mean) / std).unbind(1), strict=True))
    v = dict(zip(OBSERVABLES, raw.unbind(1), strict=True))
    p = {
        who: (v[f"px_{who}"] ** 2 + v[f"py_{who}"] ** 2 + v[f"pz_{who}"] ** 2).sqrt() for who in ("a2", "jj")
    }
    cosine = v["pz_jj"] / p["jj"]
    expected = {
        "pt jj": v["pt_jj"] - (v["px_jj"] ** 2 + v["py_jj"] ** 2).sqrt(),
        "eta jj": v["eta_jj"] + 0.5 * ((1 - cosine) / (1 + cosine)).log(),
        "on-shell a2": v["e_a2"] - p["a2"],
        "on-shell jj": v["e_jj"] - (p["jj"] ** 2 + v["m_jj"] ** 2).sqrt(),
        "decay pz_aa": v["pz_aa"] - v["pz_a1"] - v["pz_a2"],
        "decay e_jj": v["e_jj"] - v["e_j1"] - v["e_j2"],
        "deltaeta jj": v["deltaeta_jj"].abs() - (v["eta_j1"] - v["eta_j2"]).abs(),
    }
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value.abs(), rtol=1e-9, atol=1e-9, msg=name)


def test_unrelated_observables_have_residuals_of_about_one(simulator, generator):
    x = simulator.sample(20_000, generator).x
    shuffled = torch.stack([one[torch.randperm(len(one), generator=generator)] for one in x.unbind(1)], 1)
    weighted = collider._closure_weights() * simulator.closure(shuffled)
    assert (weighted.mean(0) - 1).abs().max() < 0.1
    assert 0.8 < simulator.distance(shuffled).mean() < 1


def test_garbage_is_far_but_finite(simulator, generator):
    mean, std = collider._scales()
    spacelike = torch.randn(50, 40, generator=generator) * 100
    nothing = (-mean / std)[None]  # every observable 0
    infinite = torch.full((2, 40), torch.inf) * torch.tensor([[1.0], [-1.0]])
    for x in (spacelike, nothing, nothing.float(), infinite, torch.full((1, 40), 3e38)):
        assert simulator.closure(x).isfinite().all()
        assert ((simulator.distance(x) >= 0) & (simulator.distance(x) <= 10)).all()
        assert simulator.latents(x).isfinite().all()
        assert simulator.log_prob(x, torch.zeros(1, 2)).isfinite().all()
    assert simulator.distance(spacelike).min() > 0.5
    spacelike[0, 4] = torch.nan
    assert simulator.distance(spacelike).isnan().nonzero().flatten().tolist() == [0]


def test_perturbed_events_are_off_the_manifold(simulator, generator):
    near, far = simulator.sample(500, generator).x, simulator.sample_ood(500, generator)
    assert far.dtype == torch.float32
    assert simulator.distance(far).min() > 100 * simulator.distance(near).max()


def test_quantities_are_read_off_the_particles(truth):
    _, z = truth
    assert apart(quantities(momenta(z)), z).max() < 1e-9


def test_latents_invert_samples(simulator, generator):
    points = simulator.sample(4000, generator)
    assert apart(simulator.latents(points.x), points.latents).max() < 1e-4


def test_the_embedding_has_full_rank(simulator, truth):
    z = truth[1][:200]
    jacobian = torch.func.vmap(torch.func.jacfwd(lambda one: simulator.embed(one[None])[0]))(z)
    assert jacobian.shape == (200, 40, 14)
    values = torch.linalg.svdvals(jacobian)
    assert (values[:, -1] > 1e-5 * values[:, 0]).all()


def test_score_is_the_gradient_of_the_log_density(truth):
    theta, z = truth
    theta = theta.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(log_density(z, theta).sum(), theta)
    torch.testing.assert_close(joint_score(z, theta.detach()), gradient, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("theta", [(0.0, 0.0), (1.0, -1.5)])
def test_mean_score_is_zero_at_the_true_theta(simulator, generator, theta):
    score = simulator.sample(20_000, generator, torch.tensor([theta])).score.double()
    assert ((score.mean(0) / score.std(0)).abs() * 20_000**0.5 < 3).all()
    assert (score.std(0) > 0.4).all()  # both parameters leave a trace


def profile(theta, column, n=4001):
    """A grid for one quantity, and log p(z|θ) along it with all others at a fixed place."""
    low, high = (-math.pi, math.pi) if column in range(9, 13) else (-12.0, 12.0)
    z = torch.tensor([[4.8, 5.4, 0, 0, 0, 4.4, 0, -1, -1, 0.5, 1, 2, -1, 3]], dtype=torch.float64)
    grid = torch.linspace(low, high, n, dtype=torch.float64)
    line = z.repeat(n, 1)
    line[:, column] = grid
    return grid, log_density(line, theta), log_density(z, theta)


@pytest.mark.parametrize("theta", [(0.0, 0.0), (1.0, 2.0), (-1.5, -2.0)])
def test_density_is_normalised(theta):
    # p = Π p_k, so the integrals I_k over one quantity each satisfy Π I_k = p^13 · Π ∫ p_k
    t = torch.tensor([theta], dtype=torch.float64)
    total = 0.0
    for column in range(14):
        grid, log_p, at = profile(t, column)
        total += (torch.trapezoid((log_p - at).exp(), grid).log() + at).item()
    assert total == pytest.approx(13 * at.item(), abs=1e-6)


@pytest.mark.parametrize("theta", [(0.0, 0.0), (1.0, -2.0)])
def test_draws_follow_the_density(generator, theta):
    t = torch.tensor([theta], dtype=torch.float64)
    z = draw(t.expand(10_000, 2), generator).sort(0).values
    for column in range(14):
        grid, log_p, at = profile(t, column)
        cumulative = torch.cumulative_trapezoid((log_p - at).exp(), grid)
        cumulative = torch.cat([cumulative.new_zeros(1), cumulative]) / cumulative[-1]
        empirical = torch.searchsorted(z[:, column].contiguous(), grid) / 10_000
        assert (cumulative - empirical).abs().max() < 2 / 100, column


def test_log_prob_is_the_density_at_the_latents(simulator, generator, truth):
    theta, z = truth
    torch.testing.assert_close(simulator.log_prob(simulator.embed(z), theta), log_density(z, theta))
    points = simulator.sample(1000, generator)
    single = simulator.log_prob(points.x, points.theta)
    assert single.dtype == torch.float64
    exact = log_density(points.latents.double(), points.theta.double())
    torch.testing.assert_close(single, exact, rtol=0, atol=1e-3)


def test_posterior_finds_the_true_parameters(simulator, generator):
    truth = torch.tensor([[0.5, -1.0]])
    x = simulator.sample(2000, generator, truth).x
    axis = torch.linspace(-2, 2, 17)
    grid = torch.cartesian_prod(axis, axis)
    z = simulator.latents(x)
    log_posterior = torch.stack([log_density(z, t[None].double()).sum() for t in grid])
    log_posterior += simulator.log_prior(grid)
    assert grid[log_posterior.argmax()].tolist() == truth[0].tolist()


def test_prior_is_standard_normal(simulator, generator):
    theta = simulator.prior(20_000, generator)
    assert theta.shape == (20_000, 2)
    assert theta.mean(0).abs().max() < 0.03
    assert (theta.std(0) - 1).abs().max() < 0.03
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(theta.double()).sum(1)
    torch.testing.assert_close(simulator.log_prior(theta), normal)


def test_wrong_requests_are_refused(simulator, generator):
    x = simulator.sample(3, generator).x
    with pytest.raises(UsageError, match="pass theta"):
        simulator.log_prob(x)
    with pytest.raises(UsageError, match=r"theta must be \(3, 2\)"):
        simulator.log_prob(x, torch.zeros(2, 2))
    with pytest.raises(UsageError, match=r"theta must be \(4, 2\)"):
        simulator.sample(4, generator, torch.zeros(4, 3))
    with pytest.raises(UsageError, match=r"x must be \(n, 40\)"):
        simulator.distance(x[:, :39])


def test_scales_leave_the_global_generator_alone(simulator):
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    collider._scales.cache_clear()
    simulator.sample(3, torch.Generator().manual_seed(0))
    assert torch.equal(torch.rand(3), expected)
