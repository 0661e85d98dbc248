"""A manifold-learning flow as a detector of pyod: trained by `fit`, or trained before."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from sklearn.base import clone
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted

from mfimage.errors import UsageError
from mfimage.models import GenerativeModel
from mfimage.ood import Detector
from mfimage.plugs.sklearn import MFlow
from mfimage.plugs.tables import InputError, Layout, flattened, value_errors
from mfimage.pretrained import from_pretrained

try:
    from pyod.models.base import BaseDetector
except ImportError as error:
    raise UsageError(f"mfimage.plugs.pyod needs pyod ({error}): pip install pyod") from error

Flow: TypeAlias = MFlow | GenerativeModel | str | Path
_MOST = float(np.finfo(np.float32).max)  # in the place of an infinite score, of which pyod makes no mean


class MFlowDetector(BaseDetector):
    """Detect images that do not belong, by a score of `mfimage.ood`; higher is stranger.

    X is a table (N, H·W) or (N, H·W·C), or images (N, H, W) or (N, H, W, C), as for `sklearn.MFlow`. The
    scores are learned from the images that `fit` is given, strange ones among them or not. Where `fit` trains
    the model on the same images, it knows them better than others: more than the share `contamination` of
    other familiar images is then above `threshold_`. A model that was trained on others has not that fault.

    Args:
        contamination: Share of outliers in the images of `fit`, in (0, 0.5], or a threshold of pythresh.
        flow: A model of images, a run's or model's directory or a Hub id; or an `sklearn.MFlow`, which `fit`
            trains anew. None: `MFlow()`, whose training takes ten minutes.
        score: A name in `mfimage.ood.scores.SCORES`, or "auto": all statistics at once.

    Attributes:
        decision_scores_: Scores of the images of `fit`, in their order, (N,).
        threshold_: The score above which so many of them are as `contamination` says.
        labels_: 1 for these, 0 for others, (N,).
        detector_: The calibrated `mfimage.Detector`, whose p-values and reasons hold for images not in `fit`.
    """

    def __init__(self, contamination: Any = 0.1, flow: Flow | None = None, score: str = "auto") -> None:
        super().__init__(contamination=contamination)
        self.flow, self.score = flow, score

    def fit(self, X: Any, y: Any = None) -> MFlowDetector:
        """Learn what is usual among images, and score them; y is ignored.

        Raises:
            ValueError: If X makes no sense, or holds too few images.
            ModelError: If the model has no manifold of images.
        """
        flow = MFlow() if self.flow is None else self.flow
        model, self.layout_ = _trained(flow, X) if isinstance(flow, MFlow) else _known(flow, X)
        self._set_n_classes(y)
        alpha = self.contamination if isinstance(self.contamination, int | float) else 0.1
        with value_errors():
            detector = Detector(model, self.score)
            self.detector_ = detector.calibrate(self._images(X), alpha)
        self.decision_scores_ = self.decision_function(X)
        self._process_decision_scores()
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Score images: (N,), higher is stranger."""
        check_is_fitted(self, "detector_")
        with value_errors():
            return np.minimum(self.detector_.decision_function(self._images(X)), _MOST)

    def _images(self, X: Any) -> Any:
        table = check_array(flattened(X), ensure_all_finite=False)
        if table.shape[1:] != (size := int(np.prod(self.layout_.shape)),):
            raise InputError(f"X has {table.shape[1]} features, but the model's images have {size} values")
        return self.layout_.dataset(table)


def _trained(flow: MFlow, X: Any) -> tuple[GenerativeModel, Layout]:
    fitted = clone(flow).fit(X)
    if not fitted.layout_.of_images:
        raise InputError(f"X of shape {np.shape(X)}: say how images lie in a row: MFlow(image_shape=(H, W))")
    return fitted.model_, fitted.layout_


def _known(flow: GenerativeModel | str | Path, X: Any) -> tuple[GenerativeModel, Layout]:
    model = flow if isinstance(flow, GenerativeModel) else from_pretrained(flow, "auto")
    if len(model.shape) != 3:
        Detector(model)  # which says what is wrong
    channels, height, width = model.shape
    shape = (height, width) if channels == 1 and np.ndim(X) != 4 else (height, width, channels)
    return model, Layout.of(X, shape, None)
