"""The objectives, one short function each: (module, batch) to a scalar.

x are data, shape (B, …), images in [0, 1]; context are θ, shape (B, P). "Brehmer, Cranmer" is their Flows for
simultaneous manifold learning and density estimation, 2020, arXiv 2003.13913.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import functional_call, jvp, vjp
from torch.nn import functional as F

from mfimage.models import PIE, Density, GenerativeModel, Manifold, ManifoldFlow
from mfimage.models.charts import Window
from mfimage.models.classes import Classifier
from mfimage.models.contest import Contest
from mfimage.models.duals import FORWARD_MODE
from mfimage.models.layers import full_precision, leading

_CLOSE = 3.0  # weight of the logarithm of the squared error in sharpening
_STEEP = 2.5e-6  # γ of sharpening, a value of an image, in [0, 1] where D sees [−1, 1]


def reconstruction(
    chart: Manifold, x: Tensor, context: Tensor | None = None, kept: Tensor | None = None
) -> Tensor:
    """Mean over data of ‖x − x̂‖², x̂ = decode(codes(x)), summed over pixels (Brehmer, Cranmer, §2.3).

    Where `kept` gives a k of each, (B,), 0 … d, x̂ = decode((u₁ … u_k, 0 …)): with k drawn at random every
    leading part of the codes learns to be a manifold, and the first to hold the most. Rippel, Gelbart, Adams,
    Learning ordered representations with nested dropout, 2014, arXiv 1402.0915.
    """
    if kept is None:
        return chart.squared_error(x, context).mean()
    return _squared_error(chart.decode(leading(chart.codes(x, context), kept), context), x).mean()


def noise_aware(
    chart: Manifold, noisy: Tensor, clean: Tensor, sigma: Tensor, window: Window | None = None
) -> Tensor:
    """Mean over images of log(‖x − clear(y, σ)‖² + 10⁻⁴ D), of noisy y = x + σε.

    The logarithm, so that no σ outweighs another: up to a factor this is the PSNR where σ ≥ 0.01.

    Args:
        chart: One that can `clear` noise.
        noisy: y, shape (B, C, H, W).
        clean: x.
        sigma: Of the noise in y, shape (B,).
        window: Part of the images that is looked at; all of them if None.
    """
    clean = clean if window is None else clean[(..., *window)]
    error = _squared_error(chart.clear(noisy, sigma, window), clean)
    return (error + 1e-4 * clean[0].numel()).log().mean()


def sharpening(contest: Contest, x: Tensor, noise: Tensor) -> Tensor:
    """The game of a sharper drawing against a discriminator D, both sides in one sum; no gradient is of both.

    x̂ are drawn of the codes of half of x, (B, C, H, W), and of codes of base noise, (B, d). The drawing
    minimises  3·log mean ‖x − x̂‖² + softplus(−D(x̂)),  the logarithm so that the weight suits all images, and
    D  softplus(D(x̂)) + softplus(−D(x)) + γ/2·‖∇D(x)‖²,  the last on an eighth of x, γ = 10⁻⁵ C·H·W.
    In evaluation mode it is ‖x − x̂‖² alone, of all images: what is watched, and not minimised.

    Reference:
        Goodfellow et al., Generative adversarial networks, 2014, arXiv 1406.2661; Mescheder, Geiger, Nowozin,
        Which training methods for GANs do actually converge?, 2018, arXiv 1801.04406 (the penalty); Isola et
        al., Image-to-image translation with conditional adversarial networks, 2017, arXiv 1611.07004 (the sum
        with an error).
    """
    model, judge = contest.model, contest.discriminator
    sharp = model.sharpened()
    if not contest.training:
        return _squared_error(sharp.project(x), x).mean()
    half = -(-len(x) // 2)
    with torch.no_grad():
        u = model.encode(x[:half])
        u = torch.cat([u, model.push_forward(noise[half:])]) if half < len(x) else u
    drawn = sharp.decode(u)
    error = _squared_error(drawn[:half], x[:half]).mean()
    still = {name: weight.detach() for name, weight in judge.named_parameters()}
    ours = _CLOSE * error.log() + F.softplus(-functional_call(judge, still, drawn)).mean()
    theirs = F.softplus(judge(drawn.detach())).mean() + F.softplus(-judge(x)).mean()
    with torch.enable_grad():
        some = x[: -(-len(x) // 8)].detach().requires_grad_()
        (slope,) = torch.autograd.grad(judge(some).sum(), some, create_graph=True)
    return ours + theirs + _STEEP / 2 * x[0].numel() * slope.square().flatten(1).sum(1).mean()


def misclassification(classifier: Classifier, codes: Tensor, labels: Tensor) -> Tensor:
    """Mean over data of −log p(c|u), of codes u, shape (B, d), and their class indices c, (B,)."""
    return F.nll_loss(classifier(codes), labels)


def negative_log_likelihood(
    module: Density | GenerativeModel, x: Tensor, context: Tensor | None = None
) -> Tensor:
    """Mean over data of −log p(x), in nats: of codes under a density, or of data under a model.

    On a frozen manifold, that of the codes is the M-flow's up to a constant, the mean log-volume (Brehmer,
    Cranmer, §2.3).
    """
    with full_precision(x):
        return -module.log_prob(x, context).mean()


def scandal(
    module: Density | GenerativeModel, x: Tensor, context: Tensor, score: Tensor, weight: float
) -> Tensor:
    """−log p(x|θ) + α‖∇_θ log p(x|θ) − t‖², where a simulator gives its joint score t.

    Of data, or codes: on a manifold that does not depend on θ, the volume drops out of the score,
    t = ∇_θ log p(x, z|θ), shape (B, P). The paper's α is 2.

    Reference:
        Brehmer, Louppe, Pavez, Cranmer, Mining gold from implicit models to improve likelihood-free
        inference, 2018, arXiv 1805.12244.
    """
    with full_precision(x), torch.enable_grad():
        theta = context.detach().requires_grad_()
        log_prob = module.log_prob(x, theta)
        (found,) = torch.autograd.grad(log_prob.sum(), theta, create_graph=True)
        return -log_prob.mean() + weight * (found - score).square().sum(1).mean()


def alternating(model: ManifoldFlow, x: Tensor, context: Tensor | None = None) -> Tensor:
    """Reconstruction of x for the chart, and likelihood of its codes, held still, for the density.

    No parameter has a gradient of both, so a step of this sum is one step of each phase in turn, with one
    learning rate and one clipping for both (Brehmer, Cranmer, §2.3, M/D training, alternating).
    """
    u = model.encode(x, context)
    error = _squared_error(model.decode(u, context), x).mean()
    return error + negative_log_likelihood(model.density, u.detach(), context)


def simultaneous(model: ManifoldFlow, x: Tensor, context: Tensor | None, weight: float) -> Tensor:
    """w·‖x − x̂‖² − log p(x), with gradients through the exact volume ½ log det(JᵀJ); meant for small d.

    Reference:
        Brehmer, Cranmer, §2.3 (S); Caterini et al., Rectangular flows for manifold learning, 2021,
        arXiv 2106.01413.
    """
    with full_precision(x):
        error = _squared_error(model.project(x, context), x)
        return (weight * error - model.log_prob(x, context)).mean()


def sinkhorn(
    model: GenerativeModel, x: Tensor, noise: Tensor, context: Tensor | None = None, blur: float = 0.05
) -> Tensor:
    """Sinkhorn divergence, with cost ½‖x − y‖², between data and as many samples of the model.

    Conditional models compare pairs (x, θ) with (y, θ). The samples are of base noise, shape (B, d); the blur
    is that of the entropic regularisation, in units of the data.

    Reference:
        Feydy et al., Interpolating between optimal transport and MMD using Sinkhorn divergences, 2018,
        arXiv 1810.08278; Brehmer, Cranmer, §2.3 (OT).
    """
    from geomloss import SamplesLoss

    with full_precision(x):
        codes = model.push_forward(noise, context)
    samples = model.decode(codes, context).flatten(1)
    data = x.flatten(1)
    if context is not None:
        samples, data = torch.cat([samples, context], 1), torch.cat([data, context], 1)
    return SamplesLoss("sinkhorn", p=2, blur=blur, scaling=0.9, backend="tensorized")(samples, data)


def denoising(model: PIE, noisy: Tensor, clean: Tensor, context: Tensor | None, weight: float) -> Tensor:
    """The denoising flow: −log p(y) + w·‖x − decode(encode(y))‖² for noisy y of clean x.

    The noise inflates the manifold to full dimension, so that the likelihood of y is well posed.

    Reference:
        Horvat, Pfister, Denoising normalizing flow, 2021, NeurIPS 34.
    """
    error = _squared_error(model.project(noisy, context), clean)
    with full_precision(noisy):
        return (weight * error - model.log_prob(noisy, context)).mean()


def free_form(model: ManifoldFlow, x: Tensor, probe: Tensor, context: Tensor | None, weight: float) -> Tensor:
    """w·‖x − x̂‖² − log p_h(u) + a surrogate of the log-volume, for any encoder and decoder."""
    u = model.encode(x, context)
    error = _squared_error(model.decode(u, context), x)
    volume = volume_surrogate(model, x, probe, context)
    with full_precision(x):
        return (weight * error - model.density.log_prob(u, context) + volume).mean()


def volume_surrogate(model: ManifoldFlow, x: Tensor, probe: Tensor, context: Tensor | None = None) -> Tensor:
    """A scalar an example, (B,), whose gradient estimates that of ½ log det(JᵀJ) by one jvp and one vjp.

    With e = encode, g = decode, pseudo-inverse to each other at x and moved together, and E[v vᵀ] = I:
    ∇ ½ log det(JᵀJ) = E[ ∇ ⟨sg(vᵀ e′(x)), g′(u) v⟩ ] = −E[ ∇ ⟨vᵀ e′(x), sg(g′(u) v)⟩ ].
    Where the decoder expands the probe, ‖g′v‖ > ‖v‖, the first form is taken, elsewhere the second: either
    multiplies what is differentiated by the factor below one. The first also follows the codes as the encoder
    moves them, the second holds them still. Of separate networks the first trains the decoder and the second
    the encoder alone; reconstruction ties them. The value itself means nothing, and where e′ is another left
    inverse of g′ than the pseudo-inverse, as for an M-flow's own codes, the estimate is biased. x lies near
    the manifold, and v, shape (B, d), is standard normal or orthonormal times √d.

    Reference:
        Sorrenson et al., Lifting architectural constraints of injective flows, 2023, arXiv 2306.01843, eq. 9.
    """
    u = model.encode(x, context)
    with torch.enable_grad():
        with FORWARD_MODE:
            tangent = jvp(lambda w: model.decode(w, context), (u,), (probe,))[1]
        (cotangent,) = vjp(lambda y: model.encode(y, context), x)[1](probe)
    tangent, cotangent = tangent.flatten(1), cotangent.flatten(1)
    expands = tangent.detach().norm(dim=1) > probe.norm(dim=1)
    decoder = (cotangent.detach() * tangent).sum(1)
    encoder = -(cotangent * tangent.detach()).sum(1)
    return torch.where(expands, decoder, encoder)


def dequantise(x: Tensor, noise: Tensor) -> Tensor:
    """Spread images of 256 levels over [0, 1]: (255 x + U)/256, U uniform in [0, 1), shaped as x."""
    return (255 * x + noise) / 256


def _squared_error(x: Tensor, y: Tensor) -> Tensor:
    return (x - y).square().flatten(1).sum(1)
