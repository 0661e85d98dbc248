"""Laws of every bijection, against brute force by autograd, one derivative at a time."""

import warnings

import pytest
import torch
from laws import jacobians, perturb, splines
from nflows.transforms import CompositeTransform
from torch.nn import functional as F

from mfimage.models import Prescribed, Spherical, VectorChart, image_chart, latent_density
from mfimage.models.build import coupling_steps
from mfimage.models.charts import Multiscale
from mfimage.models.density import Parted
from mfimage.models.duals import Dual, by_jvp
from mfimage.models.layers import ActNorm, AffineCoupling, Haar, OrthogonalConv1x1, push_inverse
from mfimage.models.nets import ConvNet, noise_features
from mfimage.models.subspace import BentSubspace, Householder

pytestmark = pytest.mark.usefixtures("double")
IMAGE = (4, 4, 4)
EXACT = {"atol": 1e-9, "rtol": 1e-9}
SPLINES = {"atol": 1e-6, "rtol": 0}  # of nflows are inverted by the roots of a quadratic


def levels(noise=False):
    fine, coarse = (coupling_steps(c, 1, 8, restore, noise) for c, restore in ((4, True), (8, False)))
    parts = [CompositeTransform([Haar(), *steps]) for steps in (fine, coarse)]
    return Multiscale(parts, [(4, 4, 4), (8, 2, 2)], [2])


def vector_chart(features, dim, bends=2, context=0):
    """A chart whose scales of u and v are not one."""
    chart = VectorChart(features, dim, 16, bends, context)
    chart.rest_scale.fill_(0.4)
    chart.code_scale.copy_(torch.linspace(0.5, 2, dim))
    return chart


BIJECTIONS = {  # name → shape of the input, constructor, length of the context
    "haar": (IMAGE, Haar, 0),
    "actnorm-image": (IMAGE, lambda: ActNorm(4), 0),
    "actnorm-vector": ((6,), lambda: ActNorm(6), 0),
    "conv1x1": (IMAGE, lambda: OrthogonalConv1x1(4), 0),
    "householder": ((9,), lambda: Householder(9, 3), 0),
    "householder-full": ((5,), lambda: Householder(5, 5), 0),
    "subspace": ((12,), lambda: BentSubspace(12, 3, (1, 3, 4), 2, 8, 2), 0),
    "subspace-partial-grid": ((12,), lambda: BentSubspace(12, 3, (2, 2, 2), 2, 8, 1), 0),
    "affine-image": (IMAGE, lambda: AffineCoupling(2, ConvNet(2, 4, 8)), 0),
    "affine-vector": ((7,), lambda: AffineCoupling(3, torch.nn.Linear(3, 8)), 0),
    "steps": (IMAGE, lambda: CompositeTransform(coupling_steps(4, 2, 8, True)), 0),
    "multiscale": ((1, 8, 8), levels, 0),
    "multiscale-noise": ((1, 8, 8), lambda: levels(noise=True), "noise"),
    "chart": ((1, 8, 8), lambda: image_chart((1, 8, 8), 3, ((1, 1), (1, 1)), 0.5, 4, 16, 2), 0),
    "chart-colour": ((3, 4, 8), lambda: image_chart((3, 4, 8), 5, ((2, 1),), 1.0, 4, 16, 1), 0),
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
    if context == "noise":
        theta = noise_features(torch.tensor([0.05, 0.2, 0.5]))
    else:
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
        expected = by_jvp(lambda v: transform.inverse(F.pad(v, (0, 9)))[0], u)
        _assert_same(transform.push_codes(u), expected)


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
