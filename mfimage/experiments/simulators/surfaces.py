"""Surfaces in closed form: the n-sphere with noise, and the polynomial surface of the paper."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from mfimage.datasets.points import Points
from mfimage.errors import UsageError
from mfimage.experiments.simulators.simulator import OOD_SCALE, Simulator, nearest_point

_PERIODS = 2  # full turns of an angle on either side that still count

# Of 1, z₀, z₁, z₀², z₀z₁, z₁², z₀³, … up to the fifth power.
_COEFFICIENTS = (
    -1.216858660351, 1.522218505808, -1.213718477452, 0.05650828779249, -0.02389158011765, -0.046679008635,
    -0.05568486624474, -0.007674946358297, -0.05717928991877, -0.0516948423201, 0.01371356976614,
    0.0001957832101734, -0.007085684741512, -0.006626115903844, 0.003330502571865, -0.008323193992395,
    -0.01095186264572, 0.00408106786022, -0.004647779681845, -0.008806008204853, 0.01211570437965,
)  # fmt: skip
_ROTATION = torch.tensor(
    [
        [0.9738872159124, -0.2268605673502, -0.008830269760482],
        [0.2270319382054, 0.9730738938817, 0.03979567916954],
        [-0.0004355653746275, -0.04076125645036, 0.9991688196973],
    ],
    dtype=torch.float64,
)
_POWERS = [(n - j, j) for n in range(6) for j in range(n + 1)]
_FIXED, _MOVING = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)  # centres of the components
_WEIGHT, _WIDTH = 0.4, 2.0  # of the moving component; of the fixed one
_FAR = 1e3  # bound of the coordinates in which the nearest point is sought


class Sphere(Simulator):
    """Points near the unit n-sphere in R^(n+1).

    φ_i ~ N(π/2, (π/4)²),  r = 1 + N(0, ε²),
    x_0 = r cos φ_0,  x_1 = r sin φ_0 cos φ_1,  …,  x_n = r sin φ_0 ⋯ sin φ_(n−1).

    Args:
        n: Dimension of the sphere, ≥ 1; 1 is the circle.
        epsilon: ε.

    Reference:
        Brehmer, Cranmer, 2020, arXiv 2003.13913, §4 (circle).
    """

    def __init__(self, n: int = 1, epsilon: float = 0.01) -> None:
        if n < 1 or not epsilon > 0:
            raise UsageError(f"a sphere has a dimension from 1 and a width above 0, not {n} and {epsilon}")
        self.name = "circle" if n == 1 else "sphere"
        self.shape, self.dim, self.epsilon = (n + 1,), n, epsilon

    def sample(self, n: int, generator: torch.Generator, theta: Tensor | None = None) -> Points:
        """Draw n points; latents are the angles, as drawn; a θ is refused."""
        if theta is not None:
            self._require_parameters()
        angles = self._angles(n, generator)
        radius = 1 + self.epsilon * torch.randn(n, 1, generator=generator, dtype=torch.float64)
        return Points((radius * direction(angles)).float(), self.name, latents=angles.float())

    def distance(self, x: Tensor) -> Tensor:
        """Compute |‖x‖ − 1|, shape (n,)."""
        return (x.double().norm(dim=1) - 1).abs()

    def sample_ood(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw points inside: the same angles, radius 1 + U(−3ε, 0)."""
        angles = self._angles(n, generator)
        inside = 3 * self.epsilon * torch.rand(n, 1, generator=generator, dtype=torch.float64)
        return ((1 - inside) * direction(angles)).float()

    def log_prob(self, x: Tensor, theta: Tensor | None = None) -> Tensor:
        """Compute the log-density on R^(n+1), shape (n,), with respect to volume there.

        Every tuple of angles on the real line that points to x counts: full turns of any angle, and a polar
        angle reflected at its pole, φ_i → −φ_i, which takes the later ones to their antipode. At the poles
        themselves it is infinite, as all azimuths meet there.
        """
        x = x.double()
        r = x.norm(dim=1)
        angles = spherical(x)
        radial = _log_normal(r - 1, self.epsilon)
        powers = torch.arange(self.dim - 1, 0, -1, dtype=torch.float64)
        volume = self.dim * r.log() + (powers * angles[:, :-1].sin().log()).sum(1)  # none of the azimuth's
        return self._log_angular(angles) + radial - volume

    def _log_angular(self, angles: Tensor) -> Tensor:
        """Log of the density of the angles, summed over all that give the same direction."""
        terms = []
        for flips in itertools.product((False, True), repeat=self.dim - 1):
            total, antipodal = torch.zeros(len(angles), dtype=torch.float64), False
            for i, flip in enumerate(flips):
                polar = math.pi - angles[:, i] if antipodal else angles[:, i]
                total = total + _log_wrapped(-polar if flip else polar)
                antipodal = antipodal != flip
            terms.append(total + _log_wrapped(angles[:, -1] + math.pi * antipodal))
        return torch.stack(terms).logsumexp(0)

    def _angles(self, n: int, generator: torch.Generator) -> Tensor:
        noise = torch.randn(n, self.dim, generator=generator, dtype=torch.float64)
        return math.pi / 2 + math.pi / 4 * noise


def direction(angles: Tensor) -> Tensor:
    """Map angles (n, d) to unit vectors (n, d + 1)."""
    one = torch.ones(len(angles), 1, dtype=angles.dtype)
    return torch.cat([one, angles.sin().cumprod(1)], 1) * torch.cat([angles.cos(), one], 1)


def spherical(x: Tensor) -> Tensor:
    """Map points (n, d + 1) to angles: polar ones in [0, π], the last, the azimuth, in (−π, π]."""
    tails = x.square().flip(1).cumsum(1).flip(1).sqrt()
    polar = torch.atan2(tails[:, 1:-1], x[:, :-2])
    return torch.cat([polar, torch.atan2(x[:, -1:], x[:, -2:-1])], 1)


def _log_wrapped(angle: Tensor) -> Tensor:
    """Log-density of an angle modulo 2π."""
    turns = 2 * math.pi * torch.arange(-_PERIODS, _PERIODS + 1, dtype=angle.dtype)
    return _log_normal(angle[:, None] + turns - math.pi / 2, math.pi / 4).logsumexp(1)


def _log_normal(x: Tensor, width: float) -> Tensor:
    return -0.5 * (x / width).square() - math.log(width * math.sqrt(2 * math.pi))


class Surface(Simulator):
    """The polynomial surface of the paper, D = 3, d = 2, with one parameter θ ~ U(−1, 1).

    z ~ 0.6·N((1, −1), 2²) + 0.4·N((−1, 1), σ²),  σ = 0.2 + 0.8·(1 + θ)/2,
    x = R·(z₀, z₁, p₅(z)·exp(−0.1|z|²)).

    Reference:
        Brehmer, Cranmer, 2020, arXiv 2003.13913, §4.1 and appendix.
    """

    name, shape, dim, parameters = "surface", (3,), 2, 1

    def prior(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw θ ~ U(−1, 1), shape (n, 1)."""
        return 2 * torch.rand(n, 1, generator=generator) - 1

    def log_prior(self, theta: Tensor) -> Tensor:
        """Compute the log-density of θ, shape (n,): −log 2, or −∞ outside [−1, 1]."""
        inside = (theta.abs() <= 1).all(1)
        return torch.where(inside, -math.log(2), -math.inf)

    def sample(self, n: int, generator: torch.Generator, theta: Tensor | None = None) -> Points:
        """Draw n points; latents are z."""
        given = self.prior(n, generator) if theta is None else self._theta(theta, n)
        theta = given.double().expand(n, 1)
        moving = torch.rand(n, 1, generator=generator, dtype=torch.float64) < _WEIGHT
        noise = torch.randn(n, 2, generator=generator, dtype=torch.float64)
        z = torch.where(moving, _MOVING + _width(theta) * noise, _FIXED + _WIDTH * noise)
        return Points(embed(z).float(), self.name, theta.float(), latents=z.float())

    def log_density(self, z: Tensor, theta: Tensor) -> Tensor:
        """Compute log p(z|θ) of coordinates (n, 2), shape (n,), with respect to dz."""

        def component(weight: float, centre: Tensor, width: Tensor | float) -> Tensor:
            width = torch.as_tensor(width, dtype=z.dtype)
            inner = -0.5 * ((z - centre) / width).square().sum(1)
            return inner - 2 * width.log().flatten() + math.log(weight / (2 * math.pi))

        moving = component(_WEIGHT, _MOVING, _width(theta.double()))
        return torch.logaddexp(component(1 - _WEIGHT, _FIXED, _WIDTH), moving)

    def log_prob(self, x: Tensor, theta: Tensor | None = None) -> Tensor:
        """Compute the log-density, with respect to area, at the foot of x (n, 3); θ = 0 if None."""
        return self.log_prob_at(_turned_back(x)[:, :2], theta)

    def log_prob_at(self, z: Tensor, theta: Tensor | None = None) -> Tensor:
        """Compute log p(z|θ) − ½ log det(JᵀJ) of coordinates (n, 2); θ = 0 if None."""
        theta = torch.zeros(1, 1) if theta is None else self._theta(theta, len(z))
        j = jacobian(z.double())
        return self.log_density(z.double(), theta) - 0.5 * torch.linalg.slogdet(j.mT @ j).logabsdet

    def distance(self, x: Tensor) -> Tensor:
        """Compute the distance to the nearest point, sought from the foot of x: at most its height."""
        foot = _turned_back(x)[:, :2]
        _, squared = nearest_point(embed, jacobian, x.double(), foot.clamp(-_FAR, _FAR), _FAR)
        return squared.sqrt()

    def sample_ood(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw points at θ = 0, moved by N(0, 0.1²) in each coordinate."""
        x = self.sample(n, generator, torch.zeros(1, 1)).x
        return x + OOD_SCALE * torch.randn(n, 3, generator=generator)


def height(z: Tensor) -> Tensor:
    """Compute p₅(z)·exp(−0.1|z|²) of z, shape (n, 2)."""
    terms = [c * z[:, 0] ** a * z[:, 1] ** b for c, (a, b) in zip(_COEFFICIENTS, _POWERS, strict=True)]
    return torch.stack(terms).sum(0) * torch.exp(-0.1 * z.square().sum(1))


def embed(z: Tensor) -> Tensor:
    """Map coordinates z, shape (n, 2), to the surface: x = R·(z₀, z₁, height(z)), shape (n, 3)."""
    return torch.cat([z, height(z)[:, None]], 1) @ _ROTATION.to(z).T


def _turned_back(x: Tensor) -> Tensor:
    return torch.linalg.solve(_ROTATION, x.double().T).T


def _width(theta: Tensor) -> Tensor:
    return 0.2 + 0.8 * (1 + theta) / 2


def jacobian(z: Tensor) -> Tensor:
    """Compute ∂ embed / ∂z, shape (n, 3, 2)."""
    z = z.detach().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(height(z).sum(), z)
    upright = torch.eye(2, dtype=z.dtype).expand(len(z), 2, 2)
    return _ROTATION @ torch.cat([upright, slope[:, None]], 1)
