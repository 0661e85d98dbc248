"""What we rely on in nflows 0.14, each behaviour held by a test, so that another version cannot change it."""

import math
from pathlib import Path

import pytest
import torch
from nflows.distributions import StandardNormal
from nflows.flows import Flow
from nflows.nn.nets import ResidualNet
from nflows.transforms import (
    CompositeTransform,
    PiecewiseRationalQuadraticCouplingTransform,
    Transform,
)
from nflows.utils import create_alternating_binary_mask
from torch.autograd.functional import jacobian
from torch.func import jvp, vmap

import mfimage
from mfimage.models.density import latent_density

DIM, TAIL = 4, 3.0


class Affine(Transform):
    """y = a·x + b."""

    def __init__(self, a, b):
        super().__init__()
        self.a, self.b = a, b

    def forward(self, x, context=None):
        return self.a * x + self.b, x.new_full((len(x),), x.shape[1] * math.log(self.a))

    def inverse(self, x, context=None):
        return (x - self.b) / self.a, x.new_full((len(x),), -x.shape[1] * math.log(self.a))


def spline(even=True):
    torch.manual_seed(1)
    coupling = PiecewiseRationalQuadraticCouplingTransform(
        create_alternating_binary_mask(DIM, even=even),
        lambda inputs, outputs: ResidualNet(inputs, outputs, hidden_features=8, num_blocks=1),
        num_bins=5,
        tails="linear",
        tail_bound=TAIL,
    ).double()
    with torch.no_grad():  # a new one is nearly the identity
        for parameter in coupling.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return coupling.eval()


def test_composite_runs_forward_in_order_and_backward_in_reverse_and_sums_ladj():
    both = CompositeTransform([Affine(2.0, 0.0), Affine(3.0, 1.0)])
    x = torch.randn(5, 2, dtype=torch.float64)
    y, ladj = both(x)
    torch.testing.assert_close(y, 6 * x + 1)
    torch.testing.assert_close(ladj, torch.full((5,), 2 * math.log(6.0), dtype=torch.float64))
    back, inverse_ladj = both.inverse(y)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(inverse_ladj, -ladj)


def test_an_empty_composite_is_the_identity():
    x = torch.randn(3, 2)
    y, ladj = CompositeTransform([])(x)
    torch.testing.assert_close(y, x)
    assert ladj.shape == (3,)
    assert not ladj.any()


def test_composite_keeps_its_parts_where_our_initialisation_looks_for_them():
    parts = [Affine(2.0, 0.0), Affine(3.0, 1.0)]
    assert list(CompositeTransform(parts)._transforms) == parts


def test_flow_adds_the_ladj_of_data_to_noise_to_the_base():
    flow = Flow(Affine(0.5, 1.0), StandardNormal([3]))
    x = torch.randn(6, 3, dtype=torch.float64)
    z = 0.5 * x + 1
    base = -0.5 * z.square().sum(1) - 1.5 * math.log(2 * math.pi)
    torch.testing.assert_close(flow.log_prob(x), base + 3 * math.log(0.5))


def test_standard_normal_neither_widens_float32_nor_enters_a_checkpoint():
    normal = StandardNormal([3])
    assert normal.log_prob(torch.zeros(2, 3)).dtype == torch.float32
    assert normal.state_dict() == {}


@pytest.mark.parametrize("even", [True, False])
def test_spline_coupling_is_inverted_and_its_ladj_is_autograds(even):
    coupling, x = spline(even), 1.5 * torch.randn(20, DIM, dtype=torch.float64)
    y, ladj = coupling(x)
    assert (y - x).abs().max() > 0.1
    back, inverse_ladj = coupling.inverse(y)
    torch.testing.assert_close(back, x, atol=1e-9, rtol=0)
    torch.testing.assert_close(inverse_ladj, -ladj, atol=1e-9, rtol=0)
    for row, value in zip(x[:3], ladj, strict=False):
        j = jacobian(lambda r: coupling(r[None])[0][0], row)
        torch.testing.assert_close(torch.linalg.slogdet(j).logabsdet, value, atol=1e-9, rtol=0)


def test_the_mask_says_which_half_the_spline_moves():
    moved = (spline(even=True)(x := torch.randn(9, DIM, dtype=torch.float64))[0] - x).abs().amax(0) > 0
    assert moved.tolist() == [True, False, True, False]
    assert create_alternating_binary_mask(DIM, even=True).tolist() == [1, 0, 1, 0]


def test_spline_is_the_identity_outside_its_tails():
    x = torch.tensor([[3.5, 0.1, -4.0, 0.2], [100.0, -2.0, -3.01, 1.0]], dtype=torch.float64)
    y, ladj = spline()(x)
    torch.testing.assert_close(y, x, atol=0, rtol=0)
    assert not ladj.any()


def test_tangent_directions_are_vmapped_over_a_whole_batch_through_the_spline():
    coupling, u = spline(), torch.randn(5, DIM, dtype=torch.float64)

    def along(direction):
        return jvp(lambda v: coupling(v)[0], (u,), (direction.expand_as(u),))[1]

    columns = vmap(along, out_dims=2)(torch.eye(DIM, dtype=torch.float64))
    expected = torch.stack([jacobian(lambda r: coupling(r[None])[0][0], row) for row in u])
    torch.testing.assert_close(columns, expected, atol=1e-10, rtol=0)


def test_a_density_samples_without_a_warning_and_undoes_itself():
    density, u = latent_density(DIM, steps=2, width=8).double(), torch.randn(9, DIM, dtype=torch.float64)
    density.initialise(u)
    z, _ = density._transform(u)
    torch.testing.assert_close(density.push_forward(z), u, atol=1e-9, rtol=0)


def test_only_the_interface_and_the_density_know_nflows():
    files = (path for path in Path(mfimage.__file__).parent.rglob("*.py"))
    know = {path.name for path in files if "from nflows" in path.read_text(encoding="utf-8")}
    assert know == {"layers.py", "density.py"}
