"""Batched minimisation by Levenberg–Marquardt: damped Gauss–Newton steps, every row on its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

_LARGEST_DAMPING = 1e12  # steps so short drown in rounding


class Objective(Protocol):
    """A function of coordinates u, shape (B, d), to one value a row."""

    def rows(self, chosen: Tensor) -> Objective:
        """Take some rows."""

    def value(self, u: Tensor) -> Tensor:
        """Evaluate at u, shape (B,), float64; inf or NaN where it may not be."""

    def quadratic(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradient (B, d), Gauss–Newton curvature H and metric M of the damping, (B, d, d), at u."""


@dataclass(frozen=True, eq=False)
class Minimum:
    """Where a search ended: coordinates (B, d) and value of the objective, shape (B,)."""

    u: Tensor
    value: Tensor
    history: Tensor  # the value at the start and after each iteration, (iterations + 1, B); never rises


@dataclass(frozen=True)
class LevenbergMarquardt:
    """Minimise by steps that damping shortens until they help.

        (H + λM) δ = −gradient,  shortened to √(δᵀMδ) ≤ longest;  u ← u + δ where the value falls

    Where it falls, λ is lowered; where not, λ is raised and u stays. So no row ever gets worse. `settled`
    tells which rows are done, (B,), from (B,) each: by how much the value fell in this iteration, the most
    that moving one coordinate promised to gain, and the value now. Moré, The Levenberg–Marquardt algorithm:
    implementation and theory, 1978, Lecture Notes in Mathematics 630.
    """

    settled: Callable[[Tensor, Tensor, Tensor], Tensor]
    iterations: int = 100  # quadratic approximations, at most
    tries: int = 1  # dampings tried with each of them, at most
    damping: float = 1e-3  # λ at the start
    fall: float = 0.2  # factor of λ after a step that helps
    rise: float = 4.0  # and after one that does not
    longest: float | None = None
    bound: float | None = None  # largest |u_k|; a coordinate that would cross it stays there

    @torch.no_grad()
    def minimise(self, objective: Objective, start: Tensor) -> Minimum:
        """Descend from coordinates, shape (B, d), to a local minimum of every row."""
        u, value = start.clone(), objective.value(start)
        damping, history = torch.full_like(value, self.damping), [value.clone()]
        left = torch.arange(len(u), device=u.device)
        for _ in range(self.iterations):
            if not len(left):
                break
            before = value[left]
            u[left], value[left], damping[left], slope = self._descend(
                objective.rows(left), u[left], before, damping[left]
            )
            history.append(value.clone())
            done = self.settled(before - value[left], slope, value[left])
            left = left[~done & (damping[left] < _LARGEST_DAMPING)]
        return Minimum(u, value, torch.stack(history))

    def _descend(
        self, objective: Objective, u: Tensor, value: Tensor, damping: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One approximation, and dampings until every row is better: u, value, damping and slope."""
        gradient, curvature, metric = self._within(u, *objective.quadratic(u))
        slope = 0.5 * (gradient.square() / metric.diagonal(dim1=1, dim2=2).clamp_min(1e-300)).amax(1)
        u, value, damping = u.clone(), value.clone(), damping.clone()
        left = torch.arange(len(u), device=u.device)
        for _ in range(self.tries):
            step, failed = self._step(gradient[left], curvature[left], metric[left], damping[left])
            trial = u[left] + step.to(u)
            if self.bound is not None:
                trial = trial.clamp(-self.bound, self.bound)
            reached = objective.rows(left).value(trial)
            good = (reached < value[left]) & ~failed
            u[left[good]], value[left[good]] = trial[good], reached[good]
            damping[left] *= torch.where(good, self.fall, self.rise)
            left = left[~good]
            if not len(left):
                break
        return u, value, damping, slope

    def _within(self, u: Tensor, gradient: Tensor, curvature: Tensor, metric: Tensor) -> tuple[Tensor, ...]:
        """Hold coordinates that push against the bound."""
        if self.bound is None:
            return gradient, curvature, metric
        free = ~((u.abs() >= self.bound) & (u * gradient < 0))
        both = free[:, None] & free[:, :, None]
        return gradient * free, curvature * both + torch.diag_embed((~free).to(curvature)), metric

    def _step(
        self, gradient: Tensor, curvature: Tensor, metric: Tensor, damping: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The damped step, shape (B, d), and where its equations have no solution, (B,); it is 0 there."""
        factor, info = torch.linalg.cholesky_ex(curvature + damping[:, None, None] * metric)
        step = -torch.cholesky_solve(gradient[..., None], factor)
        if self.longest is not None:
            length = (step * (metric @ step)).sum((1, 2)).clamp_min(1e-300).sqrt()
            step = step * (self.longest / length).clamp_max(1)[:, None, None]
        return step[..., 0].nan_to_num(), info != 0
