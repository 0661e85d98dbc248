"""The detector of pyod, alone and in combinations of pyod's own."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from test_sklearn import settings
from tiny import TINY, VECTORS, draw_bumps

from mfimage import Detector
from mfimage.errors import ModelError

pytest.importorskip("pyod")
from pyod.models.iforest import IForest
from pyod.models.knn import KNN
from pyod.models.lscp import LSCP
from pyod.utils.utility import standardizer

from mfimage.plugs.pyod import MFlowDetector
from mfimage.plugs.sklearn import MFlow

NOISE = np.random.default_rng(0).integers(0, 256, (12, 64)).astype(np.uint8)
FAMILIAR = draw_bumps(108, seed=5).reshape(-1, 64)
MIXED = np.concatenate([NOISE[:6], FAMILIAR, NOISE[6:]])
STRANGE = np.r_[:6, 114:120]


@pytest.fixture
def detector(model):
    return MFlowDetector(flow=model).fit(MIXED)


def test_outliers_are_told_by_a_trained_model(detector):
    assert detector.decision_scores_.shape == (120,)
    assert detector.labels_.sum() == 12  # the share called contamination
    assert detector.labels_[STRANGE].sum() >= 11
    np.testing.assert_allclose(
        detector.decision_function(MIXED[:9]), detector.decision_scores_[:9], atol=1e-4
    )
    assert (detector.predict(MIXED) == detector.labels_).all()
    familiar = draw_bumps(50, seed=8).reshape(-1, 64)
    assert detector.predict(familiar).mean() < 0.3
    probability = detector.predict_proba(np.concatenate([NOISE[:2], familiar[:2]]))
    assert probability.shape == (4, 2)
    assert (probability[:2, 1] > probability[2:, 1].max()).all()
    assert detector.predict(NOISE, return_confidence=True)[1].shape == (12,)


def test_scores_are_those_of_mfimage(model):
    images = MIXED.reshape(-1, 8, 8)
    for score in ("auto", "reconstruction"):
        ours = Detector(model, score).calibrate(images, alpha=0.1).decision_function(images)
        found = MFlowDetector(flow=model, score=score).fit(images)
        np.testing.assert_allclose(found.decision_scores_, ours, atol=1e-4)
        np.testing.assert_allclose(found.decision_function(images[..., None]), ours, atol=1e-4)


def test_it_trains_where_no_model_is_given():
    flow = MFlow(device="cpu", **settings(TINY))
    X = np.concatenate([draw_bumps(190).reshape(-1, 64), NOISE[:10]])
    found = MFlowDetector(contamination=0.05, flow=flow).fit(X)
    assert found.labels_.sum() == 10
    assert found.labels_[-10:].sum() >= 8
    assert not hasattr(flow, "model_")  # what is given stays as it is


def test_a_path_a_pickle_and_a_clone(detector, tiny_run):
    by_path = MFlowDetector(flow=tiny_run).fit(MIXED)
    again = pickle.loads(pickle.dumps(detector))
    for one in (by_path, again):
        np.testing.assert_allclose(one.decision_function(NOISE), detector.decision_function(NOISE), rtol=1e-5)
    assert not hasattr(clone(detector), "detector_")
    assert "MFlow" in repr(MFlowDetector(flow=MFlow(dim=2)))
    assert MFlowDetector(flow=MFlow()).set_params(flow__dim=3).flow.dim == 3


def test_it_is_one_of_several(detector, model):
    others = [KNN().fit(MIXED), IForest(random_state=0).fit(MIXED)]
    scores = np.stack([one.decision_scores_ for one in (detector, *others)], 1)
    combined = pytest.importorskip("pyod.models.combination", exc_type=ImportError)
    for combine in (combined.average, combined.maximization):
        strangest = combine(standardizer(scores)).argsort()[-12:]
        assert len(np.intersect1d(strangest, STRANGE)) >= 11


def test_it_runs_in_an_ensemble_of_pyod(model):
    found = LSCP([KNN(), MFlowDetector(flow=model), IForest(random_state=0)], n_bins=3, random_state=0).fit(
        MIXED
    )
    assert found.labels_[STRANGE].all()
    assert found.decision_function(NOISE).shape == (12,)


def test_an_infinite_score_is_one_pyod_can_reckon_with(detector, monkeypatch):
    monkeypatch.setattr(Detector, "decision_function", lambda *_: np.array([1.0, np.inf]))
    assert np.isfinite(detector.decision_function(NOISE[:2])).all()
    assert np.isfinite(detector.predict_proba(NOISE[:2])).all()


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (FAMILIAR[:, :50], r"image_shape \(8, 8\): does not fit X of shape \(108, 50\)"),
        (FAMILIAR[:9], "4 held-out calibration images are too few"),
        (FAMILIAR / 1.0, r"values from 0 to 255 lie outside \[0, 1\]: scale them"),
    ],
)
def test_wrong_images(model, X, message):
    with pytest.raises(ValueError, match=message):
        MFlowDetector(flow=model).fit(X)


def test_wrong_requests(model, detector):
    with pytest.raises(ValueError, match="X has 60 features, but the model's images have 64"):
        detector.predict(NOISE[:, :60])
    with pytest.raises(ValueError, match="score 'beauty': choose from"):
        MFlowDetector(flow=model, score="beauty").fit(MIXED)
    with pytest.raises(ValueError, match="say how images lie in a row"):
        MFlowDetector(flow=MFlow(device="cpu", **settings(VECTORS))).fit(MIXED[:, :20])
    points = MFlow(device="cpu", **settings(VECTORS)).fit(np.random.default_rng(0).normal(size=(60, 3)))
    with pytest.raises(ModelError, match="a model of vectors"):
        MFlowDetector(flow=points.model_).fit(MIXED)
