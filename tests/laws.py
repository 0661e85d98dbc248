"""Brute force for what the models compute cleverly, one derivative at a time, and small models for it."""

import torch
from nflows.nn.nets import ResidualNet
from nflows.transforms import (
    CompositeTransform,
    PiecewiseRationalQuadraticCouplingTransform,
    RandomPermutation,
)
from nflows.utils import create_alternating_binary_mask

from mfimage.models import PIE, EncodedChart, ManifoldFlow, VectorChart, latent_density
from mfimage.models.encoders import vector_net
from mfimage.models.linear import LULinear

FEATURES, DIM, PARAMETERS, COUNT = 5, 2, 2, 6


def perturb(module, scale=1.0, seed=0):
    """Move every parameter, outputs by about `scale`: networks that start at zero prove nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            fan = p[0].numel() if p.dim() > 1 and len(p) else max(1, p.numel())
            p.add_(scale / fan**0.5 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return module.eval()


def jacobians(function, x, context=None):
    """J[b] = ∂function(x)[b]/∂x[b], shape (B, out, in), of a function of (batch, context)."""
    x = x.detach().requires_grad_()
    y = function(x, context).flatten(1)
    outputs = [torch.autograd.grad(y[:, k].sum(), x, retain_graph=True)[0] for k in range(y.shape[1])]
    return torch.stack([row.flatten(1) for row in outputs], 1)


def log_normal(z):
    return torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1)


def flow_log_prob(transform, x, context=None):
    """Log-density under a flow to N(0, I), by the determinant of autograd's Jacobian."""
    j = jacobians(lambda v, c: transform(v, c)[0], x, context)
    return log_normal(transform(x, context)[0]) + torch.linalg.slogdet(j).logabsdet


def pca(x, dim):
    """The projections of x to its principal subspace, by a singular value decomposition."""
    flat = x.flatten(1)
    mean = flat.mean(0)
    v = torch.linalg.svd(flat - mean, full_matrices=False).Vh[:dim]
    return (mean + (flat - mean) @ v.T @ v).view_as(x)


def splines(features, context=None):
    """Random permutations, dense linear maps and spline couplings, as nflows makes them."""

    def conditioner(inputs, outputs):
        return ResidualNet(inputs, outputs, 8, context_features=context, num_blocks=1)

    parts = []
    for step in range(2):
        mask = create_alternating_binary_mask(features, even=step % 2 == 0)
        spline = PiecewiseRationalQuadraticCouplingTransform(
            mask, conditioner, num_bins=4, tails="linear", tail_bound=3.0
        )
        parts += [RandomPermutation(features), LULinear(features), spline]
    return CompositeTransform(parts)


def flow(given=0, kind=ManifoldFlow, **settings):
    """A model of vectors, conditional on so many parameters."""
    chart, h = VectorChart(FEATURES, DIM, 8, 1, given), latent_density(DIM, 1, 8, 4, context=given)
    return perturb(kind(chart, h, (FEATURES,), **settings), 0.3)


def pie(given=0):
    return flow(given, PIE, epsilon=0.5)


def encoder_flow(given=0):
    chart = EncodedChart(vector_net(FEATURES, DIM, 8), VectorChart(FEATURES, DIM, 8, 1))
    return perturb(ManifoldFlow(chart, latent_density(DIM, 1, 8, 4, context=given), (FEATURES,)), 0.3)


def batch(given=0):
    x = torch.randn(COUNT, FEATURES)
    return x, torch.randn(COUNT, given) if given else None


def gradients(value, module):
    """By parameters' names; zero where the value does not depend on one."""
    parameters = dict(module.named_parameters())
    found = torch.autograd.grad(value, [*parameters.values()], allow_unused=True, retain_graph=True)
    pairs = zip(parameters.items(), found, strict=True)
    return {name: torch.zeros_like(p) if g is None else g for (name, p), g in pairs}


def close(found, expected, atol=1e-10):
    assert found.keys() == expected.keys()
    for name, wanted in expected.items():
        torch.testing.assert_close(
            found[name], wanted, atol=atol, rtol=1e-8, msg=lambda text, name=name: name + text
        )
    return True


def agrees_with_finite_differences(loss, module, step=1e-5):
    """Each parameter on its own, along a random direction; the count of those on which the loss depends."""
    found = gradients(loss(), module)
    for name, p in module.named_parameters():
        if not p.numel():
            continue
        along, start, sides = torch.randn_like(p), p.detach().clone(), []
        for sign in (1, -1):
            with torch.no_grad():
                p.copy_(start + sign * step * along)
            sides.append(loss().detach())
        with torch.no_grad():
            p.copy_(start)
        slope = (sides[0] - sides[1]) / (2 * step)
        torch.testing.assert_close((found[name] * along).sum(), slope, atol=1e-6, rtol=1e-5, msg=name)
    return sum(float(g.abs().max()) > 1e-6 for g in found.values())
