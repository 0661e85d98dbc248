"""A manifold-learning flow as an estimator of scikit-learn: a transformer, and a density.

>>> import numpy as np
>>> from mfimage.plugs.sklearn import MFlow
>>> X = np.random.default_rng(0).normal(size=(200, 2)) @ [[1, 2, 3], [0, 1, -1]]  # a plane in R^3
>>> flow = MFlow(dim=2, steps=20).fit(X)
>>> flow.transform(X).shape, flow.inverse_transform(flow.transform(X)).shape
((200, 2), (200, 3))
>>> flow.score_samples(X).shape, flow.sample(5).shape
((200,), (5, 3))
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, DensityMixin, TransformerMixin
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from mfimage.config import AlgorithmName, Config
from mfimage.datasets.pixels import ValueRange
from mfimage.models import GenerativeModel
from mfimage.plugs.tables import Layout, flattened, value_errors
from mfimage.settings import from_json
from mfimage.training import train

_AT_ONCE = 256  # rows
_FLOATS = ("float64", "float32")


class MFlow(ClassNamePrefixFeaturesOutMixin, TransformerMixin, DensityMixin, BaseEstimator):
    """Learn a manifold and a density on it: `transform` encodes, `inverse_transform` decodes.

    `inverse_transform(transform(X))` is the projection onto the manifold.

    X is a table (N, D) of images or vectors, or images (N, H, W) or (N, H, W, C) with C 1 or 3, the channels
    last. Pixels are uint8, or floats in [0, 1], or lie in a `value_range`.

    Args:
        dim: Dimension d of the manifold; None for what principal components suggest.
        image_shape: (H, W) or (H, W, C) of the images in a table; (D,) if its rows are vectors. None: grey
            squares where D is the square of 8 or more and the values can be pixels, else vectors.
        value_range: Values of black and white, such as (0, 16) of scikit-learn's digits.
        algorithm: What is built, and by which objectives it is trained.
        steps: Optimiser steps of the manifold phase.
        time: Seconds of the training in the place of steps; 600 if neither is given.
        batch_size: Rows a step.
        settings: Other settings of `mfimage.Config` by name, such as {"noise": 0.0, "lr": 1e-3}.
        random_state: Of the weights, the batches and, where `sample` is given none, the samples.
        device: "auto", "cpu" or "cuda".
        run: Directory that keeps the run, which must not hold one; None for a temporary one.
        verbose: Whether a progress bar is shown on stderr.

    Attributes:
        model_: The trained model, for everything else that mfimage does.
        layout_: How rows of X lie, see `tables.Layout`.
        n_features_in_: D, numbers in a row.

    Reference:
        Brehmer, Cranmer, Flows for simultaneous manifold learning and density estimation, 2020,
        arXiv 2003.13913.
    """

    model_: GenerativeModel
    layout_: Layout

    def __init__(
        self,
        dim: int | None = None,
        *,
        image_shape: tuple[int, ...] | None = None,
        value_range: ValueRange | None = None,
        algorithm: AlgorithmName = "m-flow",
        steps: int | None = None,
        time: float | None = None,
        batch_size: int = 64,
        settings: Mapping[str, Any] | None = None,
        random_state: int | np.random.RandomState | None = 0,
        device: str = "auto",
        run: str | Path | None = None,
        verbose: bool = False,
    ) -> None:
        self.dim, self.image_shape, self.value_range = dim, image_shape, value_range
        self.algorithm, self.steps, self.time, self.batch_size = algorithm, steps, time, batch_size
        self.settings, self.random_state, self.device = settings, random_state, device
        self.run, self.verbose = run, verbose

    def fit(self, X: Any, y: Any = None) -> MFlow:
        """Train a model; y is ignored.

        Raises:
            ValueError: If X or a setting makes no sense, or X has too few rows for d.
            DivergedError: If the loss becomes non-finite.
        """
        table = validate_data(
            self, flattened(X), dtype="numeric", ensure_min_samples=2, ensure_min_features=2
        )
        given = X if isinstance(X, np.ndarray) else table
        layout = Layout.of(given, self.image_shape, self.value_range)
        with value_errors(), _directory(self.run) as directory:
            self.model_ = train(
                layout.array(table), directory, self._config(layout), device=self.device,
                quiet=not self.verbose, reading=layout.reading,
            )  # fmt: skip
        self.layout_, self._n_features_out = layout, self.model_.dim
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Encode: manifold coordinates u, shape (N, d)."""
        table = self._table(X)
        return self._by_rows(self.model_.encode, table).numpy().astype(_float_of(table))

    def inverse_transform(self, U: Any) -> np.ndarray:
        """Decode codes (N, d) to points on the manifold, of the shape and in the units of X; not clipped."""
        check_is_fitted(self)
        codes = check_array(U, dtype=list(_FLOATS))
        x = self._each(self.model_.decode, torch.from_numpy(codes).float().split(_AT_ONCE))
        return self.layout_.to_rows(x, codes.dtype)

    def score_samples(self, X: Any) -> np.ndarray:
        """Compute the exact log-density at the projections of rows, shape (N,), in nats.

        It is per d-dimensional volume on the manifold, in units in which pixels lie in [0, 1] (of vectors: in
        their own), and compares rows under one model, never models; of algorithm af and pie it is that on the
        whole space.
        """
        return self._by_rows(self.model_.log_prob, self._table(X)).double().numpy()

    def score(self, X: Any, y: Any = None) -> float:
        """Compute the mean of `score_samples`; y is ignored."""
        return float(self.score_samples(X).mean())

    def sample(
        self, n_samples: int = 1, random_state: int | np.random.RandomState | None = None
    ) -> np.ndarray:
        """Draw rows from the density, of the shape and in the units of X; not clipped."""
        check_is_fitted(self)
        seed = _seed(self.random_state if random_state is None else random_state)
        with value_errors():
            x = self.model_.sample(n_samples, torch.Generator().manual_seed(seed)).cpu()
        return self.layout_.to_rows(x, np.dtype(np.float64))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = list(_FLOATS)
        tags.input_tags.three_d_array = True
        return tags

    def _config(self, layout: Layout) -> Config:
        named = dict(
            dim=self.dim, algorithm=self.algorithm, steps=self.steps, time=self.time,
            batch_size=self.batch_size, seed=_seed(self.random_state), channels=layout.channels,
        )  # fmt: skip
        return from_json(Config, {**named, **(self.settings or {})})

    def _table(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return validate_data(self, flattened(X), dtype="numeric", reset=False)

    def _by_rows(self, function: Callable[[Tensor], Tensor], table: np.ndarray) -> Tensor:
        return self._each(function, self.layout_.dataset(table).batches(_AT_ONCE))

    @torch.no_grad()
    def _each(self, function: Callable[[Tensor], Tensor], parts: Iterable[Tensor]) -> Tensor:
        """Apply a function of batches; those of vectors are filled up: rounding depends on their size."""
        results = []
        for part in parts:
            count = len(part) if self.layout_.of_images else _AT_ONCE
            rows = torch.arange(count).clamp_max(len(part) - 1)
            results.append(function(part[rows].to(self.model_.device))[: len(part)].cpu())
        return torch.cat(results)


def _float_of(table: np.ndarray) -> np.dtype:
    return table.dtype if table.dtype.kind == "f" else np.dtype(np.float64)


def _seed(random_state: int | np.random.RandomState | None) -> int:
    if isinstance(random_state, int | np.integer):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31))


@contextmanager
def _directory(run: str | Path | None) -> Iterator[Path]:
    """The run's directory, or one that is removed in the end."""
    if run is not None:
        yield Path(run)
        return
    with TemporaryDirectory() as temporary:
        yield Path(temporary) / "run"
