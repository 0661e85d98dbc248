import pytest
import torch
from laws import perturb
from nflows.transforms.splines.rational_quadratic import unconstrained_rational_quadratic_spline
from torch.func import jvp, vmap

from mfimage.models.density import latent_density
from mfimage.models.splines import _knots, spline

BOUND, BINS = 3.0, 4
DENSITIES = pytest.mark.parametrize("autoregressive", [False, True])

pytestmark = pytest.mark.usefixtures("double")


def nflows_spline(x, numbers, inverse):
    parts = numbers[..., :BINS], numbers[..., BINS : 2 * BINS], numbers[..., 2 * BINS :]
    return unconstrained_rational_quadratic_spline(x, *parts, inverse, tail_bound=BOUND)


def numbers_of(count, scale=1.0):
    return scale * torch.randn(count, 3 * BINS - 1)


def places(numbers, inverse):
    """A number in each bin, at each of its ends, in the tails, far beyond and just at the bounds."""
    bins = numbers[:, BINS : 2 * BINS] if inverse else numbers[:, :BINS]
    knots = _knots(bins.T, BOUND).T
    middles = (knots[:, 1:] + knots[:, :-1]) / 2
    ends = torch.tensor([BOUND, -BOUND]).repeat(len(numbers), 1)
    beyond = torch.tensor([BOUND * (1 + 1e-12), -4.0, 1e4]).repeat(len(numbers), 1)
    return torch.cat([knots, middles, ends, beyond, torch.rand(len(numbers), 20) * 8 - 4], 1)


@pytest.mark.parametrize("inverse", [False, True])
def test_values_ladj_and_gradients_are_those_of_nflows(inverse):
    numbers = numbers_of(50)
    x = places(numbers, inverse)
    numbers = numbers[:, None].expand(-1, x.shape[1], -1).contiguous()
    counts = torch.ones_like(x)
    counts[:, 1:BINS] = 0  # of ladj's slope, which jumps from bin to bin: at the knot itself rounding decides
    found = []
    for function in (lambda *given: spline(*given, BOUND, inverse), lambda *g: nflows_spline(*g, inverse)):
        inputs = x.clone().requires_grad_(), numbers.clone().requires_grad_()
        y, ladj = function(*inputs)
        found.append((y, ladj, *torch.autograd.grad((y.sin() + counts * ladj.cos()).sum(), inputs)))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-12)


def test_it_is_inverted_and_ladj_is_the_log_of_its_slope():
    numbers = numbers_of(200, scale=3.0)  # with bins near to the least width and height
    x = (torch.rand(200) * 8 - 4).requires_grad_()
    y, ladj = spline(x, numbers, BOUND)
    (slope,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(ladj, slope.log(), atol=1e-9, rtol=0)
    back, inverse_ladj = spline(y, numbers, BOUND, inverse=True)
    torch.testing.assert_close(back, x, atol=1e-9, rtol=0)
    torch.testing.assert_close(inverse_ladj, -ladj, atol=1e-8, rtol=0)
    assert (y - x).abs().max() > 0.5


@pytest.mark.parametrize("inverse", [False, True])
def test_outside_it_is_the_identity_and_what_is_no_number_stays_alone(inverse):
    x = torch.tensor([torch.nan, torch.inf, -torch.inf, 5.0, 0.5], requires_grad=True)
    numbers = numbers_of(5).requires_grad_()
    y, ladj = spline(x, numbers, BOUND, inverse)
    torch.testing.assert_close(y[:4], x[:4], equal_nan=True, atol=0, rtol=0)
    assert not ladj[:4].any()
    to_x, to_numbers = torch.autograd.grad(y[1:].sum(), (x, numbers))
    assert to_x[:4].tolist() == [0, 1, 1, 1]
    assert not to_numbers[:4].any()
    assert to_numbers[4, : 2 * BINS].abs().min() > 0


def test_shapes_are_free_and_types_stay():
    x, numbers = torch.randn(2, 3, 5).float(), torch.randn(2, 3, 5, 3 * BINS - 1).float()
    y, ladj = spline(x, numbers, BOUND)
    assert y.shape == ladj.shape == x.shape
    assert y.dtype == ladj.dtype == torch.float32
    torch.testing.assert_close(spline(x[1, 2, 4], numbers[1, 2, 4], BOUND)[0], y[1, 2, 4])


@DENSITIES
def test_log_prob_is_vmapped_over_samples_and_its_score_function_is_that_of_the_batch(autoregressive):
    density = perturb(latent_density(3, 2, 16, BINS, autoregressive=autoregressive), 0.7).eval()
    u = 3 * torch.randn(9, 3)
    one = vmap(lambda row: density.log_prob(row[None])[0])
    torch.testing.assert_close(one(u), density.log_prob(u))
    along = vmap(lambda row: jvp(lambda v: density.log_prob(v[None])[0], (row,), (torch.ones(3),))[1])(u)
    batch = u.clone().requires_grad_()
    (slope,) = torch.autograd.grad(density.log_prob(batch).sum(), batch)
    torch.testing.assert_close(along, slope.sum(1))


@DENSITIES
def test_log_prob_is_compiled_whole(autoregressive):
    density = perturb(latent_density(3, 2, 16, BINS, autoregressive=autoregressive), 0.7).eval()
    u = 3 * torch.randn(9, 3)
    compiled = torch.compile(density.log_prob, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(u), density.log_prob(u))


@pytest.mark.parametrize("cut", [16, 120, 200, 399])
def test_knots_do_not_depend_on_the_batch_that_they_come_in(cut):
    numbers = torch.randn(8, 400, 1).float()
    whole, parts = (
        _knots(numbers, BOUND),
        [_knots(part, BOUND) for part in numbers.split([cut, 400 - cut], 1)],
    )
    assert torch.equal(torch.cat(parts, 1), whole)
