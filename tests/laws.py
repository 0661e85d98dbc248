"""Brute force for what the models compute cleverly, one derivative at a time."""

import torch
from nflows.nn.nets import ResidualNet
from nflows.transforms import (
    CompositeTransform,
    PiecewiseRationalQuadraticCouplingTransform,
    RandomPermutation,
)
from nflows.utils import create_alternating_binary_mask

from mfimage.models.density import LULinear


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
