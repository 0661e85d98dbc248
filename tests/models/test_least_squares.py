from dataclasses import dataclass

import pytest
import torch

from mfimage.models.least_squares import LevenbergMarquardt


@dataclass
class Rosenbrock:
    """(a − u₀)² + 100 (u₁ − u₀²)², a by row: its valley is curved, its least value 0 at (a, a²)."""

    a: torch.Tensor

    def rows(self, chosen):
        return Rosenbrock(self.a[chosen])

    def residuals(self, u):
        return torch.stack([self.a - u[:, 0], 10 * (u[:, 1] - u[:, 0] ** 2)], 1)

    def value(self, u):
        return self.residuals(u).square().sum(1)

    def quadratic(self, u):
        zero, one = torch.zeros(len(u)).double(), torch.ones(len(u)).double()
        j = torch.stack([torch.stack([-one, zero], 1), torch.stack([-20 * u[:, 0], 10 * one], 1)], 1)
        gradient = 2 * (j.mT @ self.residuals(u)[..., None])[..., 0]
        return gradient, 2 * j.mT @ j, torch.eye(2).double().expand(len(u), 2, 2)


def flat(gain, slope, value):
    return slope <= 1e-20


@pytest.fixture
def valley():
    return Rosenbrock(torch.tensor([1.0, 0.5, -2.0]).double())


@pytest.fixture
def start():
    return torch.tensor([[-1.2, 1.0], [3.0, 3.0], [0.0, -1.0]]).double()


@pytest.mark.parametrize("tries", [1, 5])
def test_every_row_finds_its_minimum_and_never_gets_worse(valley, start, tries):
    found = LevenbergMarquardt(flat, tries=tries).minimise(valley, start)
    torch.testing.assert_close(found.u, torch.stack([valley.a, valley.a**2], 1), atol=1e-8, rtol=0)
    assert (found.history.diff(dim=0) <= 0).all()
    assert torch.equal(found.history[-1], found.value)
    assert torch.equal(found.history[0], valley.value(start))
    assert len(found.history) < 60  # rows that are settled cost nothing


def test_rows_do_not_see_each_other(valley, start):
    solver = LevenbergMarquardt(flat, iterations=7)
    alone = solver.minimise(valley.rows(torch.tensor([1])), start[1:2])
    torch.testing.assert_close(solver.minimise(valley, start).u[1:2], alone.u, atol=1e-12, rtol=0)


def test_a_bound_is_kept_and_the_search_goes_on_along_it(valley, start):
    found = LevenbergMarquardt(flat, bound=0.8).minimise(valley, start.clamp(-0.8, 0.8))
    torch.testing.assert_close(found.u[0], torch.tensor([0.8, 0.64]).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(found.u[2], torch.tensor([-0.8, 0.64]).double(), atol=1e-6, rtol=0)


def test_no_step_is_longer_than_the_limit(valley, start):
    solver = LevenbergMarquardt(flat, iterations=1, tries=20, longest=0.1)
    moved = (solver.minimise(valley, start).u - start).norm(dim=1)
    torch.testing.assert_close(moved, torch.full((3,), 0.1).double())


def test_steps_into_what_is_not_finite_are_not_taken(valley, start):
    class Fenced(Rosenbrock):
        def rows(self, chosen):
            return Fenced(self.a[chosen])

        def value(self, u):
            return super().value(u).where(u[:, 0] < 0.9, torch.nan)

    begin = start.clamp(max=0.5)
    found = LevenbergMarquardt(flat).minimise(Fenced(valley.a), begin)
    assert found.value.isfinite().all()
    assert (found.u[:, 0] < 0.9).all()
    assert found.value[0] < Fenced(valley.a).value(begin)[0]


def test_the_caller_says_when_a_row_is_done(valley, start):
    gains = []

    def settled(gain, slope, value):
        gains.append(gain)
        return torch.ones_like(gain, dtype=torch.bool)

    found = LevenbergMarquardt(settled).minimise(valley, start)
    assert len(found.history) == 2
    torch.testing.assert_close(gains[0], found.history[0] - found.history[1])
    assert LevenbergMarquardt(settled, iterations=0).minimise(valley, start).u.equal(start)
