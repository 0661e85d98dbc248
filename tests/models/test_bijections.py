"""Laws of every bijection, against brute force by autograd, one derivative at a time."""

import warnings

import pytest
import torch
from laws import jacobians, perturb, splines
from torch.nn import functional as F

from mfimage.config import ModelConfig
from mfimage.models import Prescribed, Spherical, VectorChart, image_chart, latent_density
from mfimage.models.bent import BentSubspace
from mfimage.models.density import Parted
from mfimage.models.duals import Dual, by_jvp
from mfimage.models.layers import ActNorm, AffineCoupling, push_inverse
from mfimage.models.nets import ConvNet
from mfimage.models.pairs import DensePair
from mfimage.models.subspace import Householder
from mfimage.models.wavelets import Haar

pytestmark = pytest.mark.usefixtures("double")
IMAGE = (4, 4, 4)
EXACT = {"atol": 1e-9, "rtol": 1e-9}
SPLINES = {"atol": 1e-6, "rtol": 0}  # of nflows are inverted by the roots of a quadratic


def chart(shape, dim, **settings):
    return image_chart(ModelConfig(shape, dim, width=4, hidden=16, **settings))


def scaled(pair):
    """A pair whose scales of u and v are not one."""
    pair.rest_scale.fill_(0.4)
    pair.code_scale.copy_(torch.linspace(0.5, 2, pair.dim))
    return pair


def bent(near=()):
    """A bent subspace of three dimensions, with a dense pair for each K given."""
    dense = [DensePair(3, k, 8, 0.1) for k in near]
    subspace = BentSubspace(12, 3, dense)
    subspace.initialise(torch.randn(30, 12))
    for pair in dense:
        scaled(pair)
    return subspace


def vector_chart(features, dim, bends=2, context=0):
    """A chart whose scales of u and v are not one."""
    chart = VectorChart(features, dim, 16, bends, context)
    chart.rest_scale.fill_(0.4)
    chart.code_scale.copy_(torch.linspace(0.5, 2, dim))
    return chart


BIJECTIONS = {  # name → shape of the input, constructor, length of the context
    "haar": (IMAGE, lambda: Haar(4, 4), 0),
    "actnorm-image": (IMAGE, lambda: ActNorm(4), 0),
    "actnorm-vector": ((6,), lambda: ActNorm(6), 0),
    "householder": ((9,), lambda: Householder(9, 3), 0),
    "householder-full": ((5,), lambda: Householder(5, 5), 0),
    "householder-fixed": ((9,), lambda: Householder(9, 3, fixed=True), 0),
    "dense-pair": ((8,), lambda: scaled(DensePair(3, 5, 8, 0.1)), 0),
    "subspace-straight": ((12,), bent, 0),
    "subspace-dense": ((12,), lambda: bent((4,)), 0),
    "subspace-dense-twice": ((12,), lambda: bent((9, 9)), 0),
    "affine-vector": ((4,), lambda: AffineCoupling(torch.nn.Linear(3, 8)), 3),
    "multiscale": ((1, 8, 8), lambda: chart((1, 8, 8), 3, levels=2, steps=2).multiscale, 0),
    "multiscale-odd": ((2, 5, 7), lambda: chart((2, 5, 7), 3, levels=2).multiscale, 0),
    "multiscale-straight": ((1, 3, 8), lambda: chart((1, 3, 8), 3, levels=2, steps=0).multiscale, 0),
    "chart": ((1, 8, 8), lambda: chart((1, 8, 8), 3, levels=2, near=9, bends=2), 0),
    "chart-colour": ((3, 4, 8), lambda: chart((3, 4, 8), 5, near=6), 0),
    "chart-odd": ((1, 7, 6), lambda: chart((1, 7, 6), 3, levels=2, near=6, steps=0), 0),
    "parted": ((5,), lambda: Parted(2, latent_density(2, 1, 8).transform, ActNorm(3)), 0),
}
BIJECTIONS |= {
    f"vector-{features}-{dim}-{bends}-{context}": (
        (features,),
        lambda f=features, d=dim, b=bends, c=context: vector_chart(f, d, b, c),
        context,
    )
    for features, dim in [(2, 1), (3, 2), (7, 1), (9, 4), (6, 5)]
    for bends, context in [(0, 0), (1, 2), (2, 0)]
}
BIJECTIONS["vector-3-2-3-2"] = ((3,), lambda: vector_chart(3, 2, 3, 2), 2)
BIJECTIONS |= {f"sphere-{n}": ((n + 1,), lambda n=n: Spherical(n), 0) for n in range(1, 6)}
BIJECTIONS |= {
    f"splines-{features}-{dim}-{context}": (
        (features,),
        lambda f=features, d=dim, c=context: Prescribed(splines(f, c or None), d, f),
        context,
    )
    for features, dim, context in [(2, 1, 0), (5, 2, 2), (8, 7, 0)]
}
BIJECTIONS |= {
    f"density-{dim}-{context}": (
        (dim,),
        lambda d=dim, c=context: latent_density(d, 3, 16, 4, context=c).transform,
        context,
    )
    for dim in (1, 2, 3, 8)
    for context in (0, 2)
}
BIJECTIONS |= {
    f"density-autoregressive-{dim}-{context}": (
        (dim,),
        lambda d=dim, c=context: latent_density(d, 2, 16, 4, context=c, autoregressive=True).transform,
        context,
    )
    for dim, context in [(1, 0), (2, 2), (7, 0)]
}


CHARTS = [name for name in BIJECTIONS if name.startswith(("chart", "vector", "sphere", "splines"))]
CONDITIONAL = [name for name, (_, _, context) in BIJECTIONS.items() if context]


@pytest.fixture(params=BIJECTIONS)
def bijection(request):
    return made_bijection(request.param)


def made_bijection(name):
    """A transform away from where it starts, three inputs, its context, and how exactly it is inverted."""
    shape, make, context = BIJECTIONS[name]
    transform, x = perturb(make(), 0.3), torch.randn(3, *shape)
    if name.startswith("density"):
        x = 3 * x  # inside the splines' range and outside it
    theta = torch.randn(3, context) if context else None
    inexact = name.startswith(("splines", "density", "parted"))
    return transform, x, theta, SPLINES if inexact else EXACT


def test_a_bijection_is_undone_by_its_inverse(bijection):
    transform, x, theta, tolerance = bijection
    z, ladj = transform(x, theta)
    back, back_ladj = _inverse(transform, z, theta)
    torch.testing.assert_close(back, x, **tolerance)
    torch.testing.assert_close(back_ladj, -ladj, **tolerance)
    assert z.shape[1:].numel() == x.shape[1:].numel()


def test_its_ladj_is_autograds_in_both_directions(bijection):
    transform, x, theta, _ = bijection
    z, ladj = transform(x, theta)
    forwards = jacobians(lambda v, c: transform(v, c)[0], x, theta)
    torch.testing.assert_close(torch.linalg.slogdet(forwards).logabsdet, ladj, **EXACT)
    backwards = jacobians(lambda v, c: _inverse(transform, v, c)[0], z, theta)
    torch.testing.assert_close(torch.linalg.slogdet(backwards).logabsdet, -ladj, **SPLINES)


def test_a_batch_is_its_rows(bijection):
    transform, x, theta, _ = bijection
    alone = [transform(x[i : i + 1], None if theta is None else theta[i : i + 1]) for i in range(3)]
    for whole, rows in zip(transform(x, theta), zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(whole, torch.cat(rows), **EXACT)


@pytest.mark.parametrize("name", sorted(set(BIJECTIONS) - set(CONDITIONAL) - set(CHARTS)))
def test_what_it_pushes_is_what_autograd_pushes(name):
    """Of layers, which have no context on the way back; what charts push is tried below, with the models."""
    transform, x, _, _ = made_bijection(name)
    z = transform(x)[0].detach()
    dual = Dual(z, torch.randn(3, 4, *z.shape[1:]))
    _assert_same(push_inverse(transform, dual), by_jvp(lambda v: _inverse(transform, v)[0], dual))
    if isinstance(transform, BentSubspace):
        u = dual.part(None, 3)
        expected = by_jvp(lambda v: transform.inverse(F.pad(v, (0, transform.features - 3)))[0], u)
        _assert_same(transform.push_codes(u), expected)


def test_what_an_affine_coupling_pushes_is_what_autograd_pushes():
    """Of both parts: what is coupled and what it is given, a mask included."""
    torch.manual_seed(0)
    mask = torch.ones(4, 3, 2)
    mask[2:, :, 1:] = 0
    coupling = perturb(AffineCoupling(ConvNet(2, 8, 6), mask=mask))
    duals = [Dual(torch.randn(2, c, 3, 2), torch.randn(2, 5, c, 3, 2)) for c in (4, 2)]
    joined = Dual(
        *(torch.cat(parts, -3) for parts in zip(*((d.value, d.tangent) for d in duals), strict=True))
    )
    expected = by_jvp(lambda both: coupling.inverse(both[:, :4], both[:, 4:])[0], joined)
    _assert_same(coupling.push(*duals), expected)
    z = coupling(duals[0].value, duals[1].value)[0]
    assert torch.equal(z[:, 2:, :, 1:], duals[0].value[:, 2:, :, 1:])


@pytest.mark.parametrize("name", CONDITIONAL)
def test_context_moves_it(name):
    transform, x, theta, _ = made_bijection(name)
    z = transform(x, theta)[0]
    assert (transform(x, theta + 1)[0] - z).abs().max() > 1e-3


@pytest.mark.parametrize("name", CHARTS)
def test_the_first_coordinates_of_a_chart_are_its_codes(name):
    chart, x, theta, tolerance = made_bijection(name)
    z = chart(x, theta)[0]
    u, v = z[:, : chart.dim], z[:, chart.dim :]
    torch.testing.assert_close(chart.codes(x, theta), u, **EXACT)
    on = chart.decode(u, theta)
    torch.testing.assert_close(on, chart.inverse(torch.cat([u, 0 * v], 1), theta)[0], **EXACT)
    torch.testing.assert_close(chart(on, theta)[0], torch.cat([u, 0 * v], 1), **tolerance)


def _inverse(transform, z, context=None):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.triangular_solve is deprecated")
        return transform.inverse(z, context)


def _assert_same(found, expected):
    torch.testing.assert_close(found.value, expected.value, **EXACT)
    torch.testing.assert_close(found.tangent, expected.tangent, **EXACT)
