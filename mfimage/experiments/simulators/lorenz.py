"""The Lorenz attractor: points of chaotic trajectories near a two-dimensional fractal sheet in R³."""

from __future__ import annotations

import hashlib
import warnings
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mfimage.datasets.points import Points
from mfimage.errors import ResourceError, UsageError
from mfimage.experiments.simulators.simulator import Simulator
from mfimage.files import cache_folder, open_npz, whole

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

_SIGMA, _BETA, _RHO = 10.0, 8 / 3, 28.0
_BEGIN, _END = 50.0, 1000.0
_MEAN = np.array([0.0, 0.0, 23.55])  # of x, y, z over long times; x and y are symmetric
_STD = np.array([7.92, 9.01, 8.62])


class Lorenz(Simulator):
    """Points of the Lorenz system, σ = 10, β = 8/3, ρ = 28, standardised by fixed numbers.

    x′ = σ(y − x),  y′ = x(ρ − z) − y,  z′ = xy − βz, from (1, 1, 1) + 0.1·N(0, I), at times 50 … 1000.
    The default integrates in some ten seconds, once; then it is read from the cache.

    Args:
        trajectories: How many.
        steps: Equidistant points kept of each.
        seed: Of the starts.
        cache: Directory of the cache; `files.cache_folder` if None.

    Reference:
        Lorenz, Deterministic nonperiodic flow, 1963; Brehmer, Cranmer, 2020, arXiv 2003.13913, §4.2.
    """

    name, shape, dim = "lorenz", (3,), 2

    def __init__(
        self, trajectories: int = 100, steps: int = 10_000, seed: int = 0, cache: str | Path | None = None
    ) -> None:
        if min(trajectories, steps) < 1:
            raise UsageError("a Lorenz attractor has at least one trajectory and one step")
        self._settings = (trajectories, steps, seed)
        self._folder = Path(cache) if cache else cache_folder()

    def sample(self, n: int, generator: torch.Generator, theta: Tensor | None = None) -> Points:
        """Draw n points, uniformly over trajectories and times; without replacement within a sample."""
        rows = self._paths.flatten(0, 1)
        if n > len(rows):
            raise UsageError(f"{n} points are asked of {len(rows)}: give more trajectories or steps")
        return Points(rows[torch.randperm(len(rows), generator=generator)[:n]], self.name)

    def trajectory(self, i: int = 0) -> Tensor:
        """Return trajectory i in the order of time, shape (steps, 3) float32."""
        return self._paths[i]

    def distance(self, x: Tensor) -> Tensor:
        """Compute the distance to the nearest point of any trajectory; NaN where x is not finite.

        An upper bound of the distance from the attractor, above it by about the spacing of the points.
        """
        found = torch.full((len(x),), torch.nan, dtype=torch.float64)
        finite = x.isfinite().all(1)
        found[finite] = torch.from_numpy(self._tree.query(x[finite].double().numpy())[0])
        return found

    @cached_property
    def _paths(self) -> Tensor:
        return torch.from_numpy(self._read_or_integrate()).float()

    @cached_property
    def _tree(self) -> cKDTree:
        from scipy.spatial import cKDTree

        return cKDTree(self._paths.flatten(0, 1).double().numpy())

    def _read_or_integrate(self) -> np.ndarray:
        """Read the paths from the cache, or integrate them and write it."""
        if self._folder is None:
            return integrate(*self._settings)
        key = hashlib.sha256(repr(("lorenz-1", *self._settings)).encode()).hexdigest()[:16]
        path = self._folder / f"lorenz-{key}.npz"
        # Anything may be raised by a damaged zip; then, or where there is none yet, it is made.
        with suppress(Exception):
            with open_npz(path) as arrays:
                found = arrays["paths"]
            if found.shape == (*self._settings[:2], 3) and found.dtype == np.float32:
                return found
        paths = integrate(*self._settings)
        try:
            with whole(path) as temporary, open(temporary, "wb") as written:
                np.savez(written, paths=paths)
        except (OSError, ResourceError) as error:
            message = f"{path}: the cache cannot be written ({error}): choose another `cache`"
            warnings.warn(message, stacklevel=2)
        return paths


def integrate(trajectories: int, steps: int, seed: int) -> np.ndarray:
    """Integrate the system by an explicit Runge–Kutta method of order 8, all trajectories as one.

    Returns standardised positions, (trajectories, steps, 3), float32.
    """
    from scipy.integrate import solve_ivp

    start = 1 + 0.1 * np.random.default_rng(seed).normal(size=(3, trajectories))

    def velocity(_: float, flat: np.ndarray) -> np.ndarray:
        x, y, z = flat.reshape(3, trajectories)
        return np.concatenate([_SIGMA * (y - x), x * (_RHO - z) - y, x * y - _BETA * z])

    times = np.linspace(_BEGIN, _END, steps)
    solved = solve_ivp(velocity, (0.0, _END), start.ravel(), "DOP853", times, rtol=1e-8, atol=1e-8)
    paths = solved.y.reshape(3, trajectories, steps).transpose(1, 2, 0)
    return ((paths - _MEAN) / _STD).astype(np.float32)
