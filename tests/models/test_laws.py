"""Laws of every kind of model, against brute force by autograd, one derivative at a time."""

import random
import warnings
from dataclasses import dataclass, replace

import pytest
import torch
from laws import flow_log_prob, jacobians, log_normal, perturb, splines

from mfimage.config import ModelConfig
from mfimage.errors import UsageError
from mfimage.models import PIE, AmbientFlow, Chart, ManifoldFlow, Prescribed, latent_density
from mfimage.models.build import KINDS, build
from mfimage.models.duals import Dual
from mfimage.models.geometry import metric, tangents

pytestmark = [
    pytest.mark.usefixtures("double"),
    pytest.mark.filterwarnings("ignore:There is a performance drop"),  # nflows' gate has no batching rule
]
EXACT = {"atol": 1e-9, "rtol": 1e-9}
SMALL = {"width": 2, "noise_width": 2, "hidden": 8, "near": 9, "density_steps": 1, "density_width": 8}
VECTORS = ModelConfig((6,), 3, hidden=16, bends=2, density_steps=1, density_width=8)
IMAGES = ModelConfig((1, 8, 8), 3, **SMALL)


def permuted(features, dim, context):
    """No coordinate of the manifold keeps its place."""
    return ManifoldFlow(
        Prescribed(splines(features, context or None), dim, features),
        latent_density(dim, 1, 8, 4, context=context),
        (features,),
    )


MODELS = {  # name → what `build` makes a model of, or a constructor of one put together by hand
    "image": IMAGES,
    "image, odd": ModelConfig((1, 7, 6), 3, **SMALL),
    "image, colour, levels": ModelConfig((3, 8, 8), 4, levels=2, steps=2, bends=2, **SMALL),
    "image, no coupling": ModelConfig((1, 8, 8), 3, steps=0, **SMALL),
    "image, noise": ModelConfig((1, 8, 8), 3, levels=2, noise_aware=True, **SMALL),
    "image, conditional": replace(IMAGES, context=2),
    "image, encoder, odd": ModelConfig((1, 5, 7), 3, kind="encoder-flow", noise_aware=True, **SMALL),
    "image, autoencoder": ModelConfig((3, 8, 8), 3, kind="autoencoder", **SMALL),
    "image, pie": replace(IMAGES, kind="pie", context=1),
    "image, ambient": replace(IMAGES, kind="ambient-flow"),
    "image, ambient, odd": replace(IMAGES, shape=(1, 5, 7), kind="ambient-flow", levels=2),
    "image, pie, odd": replace(IMAGES, shape=(2, 3, 5), kind="pie"),
    "image, ambient, conditional": replace(IMAGES, kind="ambient-flow", context=2),
    "image, linear": replace(IMAGES, kind="linear"),
    "vector, 10": replace(VECTORS, shape=(10,), dim=4),
    "vector, linear": replace(VECTORS, kind="linear"),
    "by hand": lambda: permuted(5, 2, 0),
    "by hand, conditional": lambda: permuted(5, 2, 2),
    "by hand, 40": lambda: permuted(40, 14, 0),
    "by hand, 40, conditional": lambda: permuted(40, 14, 2),
    "vector, 40, chart sees θ": replace(VECTORS, shape=(40,), dim=14, context=2, chart_context=True),
    "by hand, pie": lambda: PIE(permuted(5, 2, 2).chart, latent_density(2, 1, 8, context=2), (5,), 0.3),
    "by hand, pie, 40": lambda: PIE(
        permuted(40, 14, 2).chart, latent_density(14, 1, 8, context=2), (40,), 0.3
    ),
    "by hand, ambient, 40": lambda: AmbientFlow(splines(40), (40,)),
    "by hand, ambient": lambda: AmbientFlow(splines(5), (5,)),
}
MODELS |= {
    f"vector, {kind}, {context}, {shape[0]}": replace(
        VECTORS, kind=kind, shape=shape, dim=dim, context=context
    )
    for kind in ("manifold-flow", "encoder-flow", "pie", "ambient-flow", "autoencoder")
    for context in (0, 2)
    for shape, dim in [((2,), 1), ((6,), 3)]
}
MODELS |= {
    f"vector, {kind}, {context}, 40": replace(VECTORS, kind=kind, shape=(40,), dim=14, context=context)
    for kind in ("encoder-flow", "pie", "ambient-flow")
    for context in (0, 2)
}
MODELS |= {
    f"vector, {kind}, chart sees θ": replace(VECTORS, kind=kind, context=2, chart_context=True)
    for kind in ("manifold-flow", "pie", "ambient-flow")
}
MODELS |= {
    f"sphere, {n}, {context}": replace(VECTORS, kind="sphere", shape=(n + 1,), dim=n, context=context)
    for n in (1, 2, 5, 9)
    for context in (0, 2)
}


@dataclass
class Case:
    """A model away from where it starts, and three examples.

    exact: whether its codes come back from what they are decoded to, as of all charts.
    """

    name: str
    model: object
    x: torch.Tensor
    theta: torch.Tensor | None

    @property
    def exact(self):
        return isinstance(getattr(self.model, "chart", None), Chart) or not self.model.has_manifold


def made(name):
    make = MODELS[name]
    model = build(make).double() if isinstance(make, ModelConfig) else make()
    x = 0.5 + 0.5 * torch.randn(60, *model.shape)
    theta = torch.randn(60, model.context_features) if model.conditional else None
    if isinstance(make, ModelConfig):
        model.initialise(x, theta)
    return Case(name, perturb(model, 0.3), x[:3], None if theta is None else theta[:3])


@pytest.fixture(params=MODELS)
def case(request):
    return made(request.param)


def test_every_kind_is_tried():
    tried = {c.kind for c in MODELS.values() if isinstance(c, ModelConfig)}
    assert tried == set(KINDS)


def test_log_prob_is_the_change_of_variables(case):
    model, x, theta = case.model, case.x, case.theta
    found = model.log_prob(x, theta)
    torch.testing.assert_close(found, _log_prob(model, x, theta), atol=1e-6, rtol=0)
    if theta is not None:
        assert (model.log_prob(x, theta + 1) - found).abs().max() > 1e-3


def _log_prob(model, x, theta):
    """By the determinants of autograd's Jacobians, forwards and, of the manifold, backwards."""
    if isinstance(model, AmbientFlow):
        z = model.encode(x, theta)
        backwards = torch.linalg.slogdet(jacobians(model.decode, z, theta)).logabsdet
        forwards = flow_log_prob(model.transform, x, theta)
        torch.testing.assert_close(log_normal(z) - backwards, forwards, atol=1e-6, rtol=0)
        return forwards
    if isinstance(model, PIE):
        z, _ = model.chart(x, theta)
        u, v = z[:, : model.dim], z[:, model.dim :]
        j = jacobians(lambda y, c: model.chart(y, c)[0], x, theta)
        off = torch.distributions.Normal(0.0, model.epsilon).log_prob(v).sum(1)
        return flow_log_prob(model.density.transform, u, theta) + off + torch.linalg.slogdet(j).logabsdet
    u = model.encode(x, theta)
    h = flow_log_prob(model.density.transform, u, theta)
    if not isinstance(model, ManifoldFlow):
        return h
    volume = torch.linalg.svdvals(jacobians(model.decode, u, theta)).log().sum(1)
    if model.config is None or model.config.kind not in ("linear", "sphere"):  # these may be isometries
        assert volume.abs().min() > 1e-3
    return h - volume


def test_projection(case):
    model, x, theta = case.model, case.x, case.theta
    projected = model.project(x, theta)
    assert projected.shape == x.shape
    assert torch.equal(model(x, theta), projected)
    u = model.encode(x, theta)
    assert u.shape == (3, model.dim)
    torch.testing.assert_close(model.decode(u, theta), projected, **EXACT)
    if case.exact:
        torch.testing.assert_close(model.encode(projected, theta), u, atol=1e-6, rtol=0)
        torch.testing.assert_close(model.project(projected, theta), projected, atol=1e-6, rtol=0)
    if model.has_manifold:
        assert (projected - x).abs().max() > 1e-3
    else:
        torch.testing.assert_close(projected, x, atol=1e-6, rtol=0)


def test_a_batch_of_a_model_is_its_rows(case):
    model, x, theta = case.model, case.x, case.theta
    u = model.encode(x, theta)
    for function, rows in ((model.encode, x), (model.decode, u), (model.log_prob, x)):
        alone = [function(rows[i : i + 1], None if theta is None else theta[i : i + 1]) for i in range(3)]
        torch.testing.assert_close(function(rows, theta), torch.cat(alone), atol=1e-8, rtol=1e-8)


def test_samples(case):
    model, theta = case.model, case.theta
    one = None if theta is None else theta[:1]

    def draw(seed=0, size=256, context=one):
        return model.sample(5, torch.Generator().manual_seed(seed), size, context)

    whole = draw()
    assert whole.shape == (5, *model.shape)
    assert model.sample(0, context=one).shape == (0, *model.shape)
    torch.testing.assert_close(draw(size=2), whole, **EXACT)
    assert (draw(seed=1) - whole).abs().max() > 1e-3
    if theta is not None:
        torch.testing.assert_close(draw(context=one.expand(5, -1)), whole, **EXACT)
        assert (draw(context=one + 1) - whole).abs().max() > 1e-3
        mixed = draw(context=torch.cat([one, theta[1:2].expand(4, -1)]), size=2)
        torch.testing.assert_close(mixed[:1], whole[:1], **EXACT)
    if model.conditional:
        with pytest.raises(UsageError, match=f"give its {model.context_features} parameters"):
            draw(context=None)
    if case.exact:
        on = None if theta is None else one.expand(5, -1)
        torch.testing.assert_close(model.project(whole, on), whole, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", [name for name in MODELS if "ambient" not in name])
def test_a_decoder_pushes_what_autograd_pushes(name):
    case = made(name)
    model, x, theta = case.model, case.x, case.theta
    u = model.encode(x, theta).detach()
    j = jacobians(model.decode, u, theta)
    dual = Dual(u, torch.randn(3, 4, model.dim))
    found = model.chart.push_codes(dual, theta)
    torch.testing.assert_close(found.value, model.decode(u, theta), **EXACT)
    torch.testing.assert_close(found.tangent.flatten(2), dual.tangent @ j.mT, atol=1e-8, rtol=1e-8)
    rotated = model.chart.push_codes(dual, theta, rotated=True).tangent.flatten(2)
    gram = dual.tangent @ j.mT @ j @ dual.tangent.mT
    torch.testing.assert_close(rotated @ rotated.mT, gram, atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(tangents(model.chart, u, theta), j, atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(metric(model.chart, u, theta), j.mT @ j, atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(tangents(lambda v: model.decode(v, theta), u), j, atol=1e-8, rtol=1e-8)
    assert j.abs().max() > 1e-2


def test_global_state_is_left_alone(case):
    def state():
        switches = torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads()
        return switches, torch.get_rng_state().tolist(), random.getstate()

    before, filters = state(), warnings.filters[:]
    model = build(MODELS[case.name]) if isinstance(MODELS[case.name], ModelConfig) else case.model
    x, theta = case.x.to(next(model.parameters())), case.theta
    theta = None if theta is None else theta.to(x)
    if model is not case.model:
        model.initialise(x.repeat(9, *[1] * (x.dim() - 1)), None if theta is None else theta.repeat(9, 1))
    model.log_prob(x, theta)
    model.project(x, theta)
    model.sample(2, torch.Generator().manual_seed(0), context=None if theta is None else theta[:1])
    repr(model)
    assert state() == before
    assert warnings.filters == filters


def test_repr_shows_the_parts_and_their_sizes(case):
    lines = repr(case.model).splitlines()
    total = sum(p.numel() for p in case.model.parameters())
    assert len(lines) <= 8
    assert lines[0].startswith(
        f"{type(case.model).__name__}: shape {case.model.shape}, d = {case.model.dim}, {total:,} "
    )
    assert (
        ("noise-aware" in lines[0])
        is case.model.noise_aware
        is ("noise" in case.name or "encoder, odd" in case.name)
    )
    parts = dict(line.split(": ", 1) for line in lines[1:] if not line.startswith("    "))
    assert set(parts) <= {"  chart", "  density", "  transform"}
    assert sum(int(p.split(", ")[1].split()[0].replace(",", "")) for p in parts.values()) == total
