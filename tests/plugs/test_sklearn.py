"""The estimator of scikit-learn, held to scikit-learn's own checks."""

import doctest
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator
from tiny import TINY, VECTORS, draw_bumps

from mfimage.errors import DataError, MfimageError, UsageError
from mfimage.plugs import sklearn
from mfimage.plugs.sklearn import MFlow
from mfimage.plugs.tables import Layout


def settings(config, **changes):
    """A configuration as arguments of the estimator."""
    named = {"dim": config.dim, "steps": config.steps, "batch_size": config.batch_size}
    others = {
        k: v for k, v in vars(config).items() if k not in (*named, "algorithm", "seed", "channels", "time")
    }
    return {**named, "settings": others, **changes}


@pytest.fixture(scope="module")
def fitted():
    torch.set_num_threads(1)
    return MFlow(device="cpu", **settings(TINY)).fit(draw_bumps(220).reshape(220, 64))


def test_the_checks_of_scikit_learn():
    flow = MFlow(**settings(VECTORS, steps=2), device="cpu")
    flow.settings["density_steps"] = 2
    found = check_estimator(flow, on_fail=None, on_skip=None)
    assert {one["check_name"]: one["exception"] for one in found if one["status"] == "failed"} == {}
    assert sum(one["status"] == "passed" for one in found) > 30


def test_codes_projections_and_densities_are_the_models(fitted):
    X = draw_bumps(300, seed=4).reshape(-1, 64)  # more than are taken at once
    x = torch.from_numpy(X).float().view(-1, 1, 8, 8) / 255
    model = fitted.model_
    with torch.no_grad():
        u, again, log_prob = model.encode(x), model.project(x), model.log_prob(x)
    assert fitted.layout_.shape == (8, 8)
    assert fitted.transform(X).shape == (300, 2)
    np.testing.assert_allclose(fitted.transform(X), u, atol=1e-4)
    back = fitted.inverse_transform(fitted.transform(X))
    np.testing.assert_allclose(back, 255 * again.reshape(-1, 64), atol=0.1)  # in the units of X
    np.testing.assert_allclose(fitted.score_samples(X), log_prob, atol=1e-2)
    assert fitted.score(X) == pytest.approx(float(log_prob.mean()), abs=1e-2)
    floats = fitted.transform((X / 255).astype(np.float32))
    assert floats.dtype == np.float32
    np.testing.assert_allclose(floats, u, atol=1e-4)
    assert list(fitted.get_feature_names_out()) == ["mflow0", "mflow1"]
    assert fitted.n_features_in_ == 64


def test_samples_follow_from_the_seed(fitted):
    first, second, other = (fitted.sample(7, random_state=seed) for seed in (1, 1, 2))
    assert first.shape == (7, 64)
    assert (first == second).all()
    assert (first != other).any()
    assert 0 < first.mean() < 255
    assert (fitted.sample(2) == fitted.sample(2)).all()


def test_a_fitted_estimator_is_pickled_and_a_clone_is_not_fitted(fitted):
    X = draw_bumps(5, seed=4).reshape(-1, 64)
    again = pickle.loads(pickle.dumps(fitted))
    assert (again.transform(X) == fitted.transform(X)).all()
    assert not hasattr(clone(fitted), "model_")
    assert clone(fitted).get_params() == fitted.get_params()


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1), (8, 8, 3)])
def test_images_as_they_are_and_flat(shape):
    grey = draw_bumps(60) / 255
    X = np.broadcast_to(grey[..., None], (60, 8, 8, shape[2])) if shape[2:] else grey
    flow = MFlow(device="cpu", **settings(TINY, steps=2)).fit(X)
    U = flow.transform(X)
    assert flow.model_.shape == (3 if shape == (8, 8, 3) else 1, 8, 8)
    assert flow.inverse_transform(U).shape == flow.sample(60).shape == (60, *shape)
    flat = MFlow(device="cpu", image_shape=shape, **settings(TINY, steps=2)).fit(X.reshape(60, -1))
    np.testing.assert_array_equal(flat.transform(X), U)
    assert flat.inverse_transform(U).shape == (60, flat.n_features_in_)
    np.testing.assert_array_equal(flat.inverse_transform(U).reshape(X.shape), flow.inverse_transform(U))


def test_a_value_range_is_undone():
    X = 16 * draw_bumps(60).reshape(60, 64) / 255
    flow = MFlow(device="cpu", value_range=(0, 16), **settings(TINY, steps=2)).fit(X)
    assert flow.layout_.of_images
    assert np.abs(flow.inverse_transform(flow.transform(X)) - X).mean() < 1


def test_squares_are_guessed_where_values_can_be_those_of_pixels():
    def layout(X, image_shape=None, value_range=None):
        return Layout.of(X, image_shape, value_range).shape

    pixels = np.full((5, 64), 0.5)
    assert layout(pixels) == layout((255 * pixels).astype(np.uint8)) == (8, 8)
    assert layout(pixels - 1) == layout(255 * pixels) == (64,)  # of no known scale
    assert layout(16 * pixels, value_range=(0, 16)) == (8, 8)
    assert layout(pixels[:, :49]) == (49,)  # seven pixels a side
    assert layout(pixels[:, :63]) == (63,)
    assert layout(pixels, (64,)) == (64,)
    assert layout(pixels, (4, 16)) == (4, 16)


def test_pipelines_and_searches():
    random = np.random.default_rng(0)
    X = random.normal(size=(90, 2)) @ random.normal(size=(2, 5))
    flow = MFlow(device="cpu", **settings(VECTORS))
    pipe = make_pipeline(PCA(3), flow).fit(X)
    assert pipe.transform(X).shape == (90, 1)
    assert np.isfinite(pipe.score_samples(X)).all()
    found = GridSearchCV(flow, {"dim": [1, 2]}, cv=2).fit(X)
    assert found.best_params_["dim"] in (1, 2)


def test_a_run_is_kept_where_one_is_named(tmp_path):
    from mfimage import from_pretrained

    X = draw_bumps(60).reshape(60, 64)
    flow = MFlow(device="cpu", run=tmp_path / "run", **settings(TINY, steps=2)).fit(X)
    again = from_pretrained(tmp_path / "run")
    assert torch.equal(again.encode(torch.zeros(1, 1, 8, 8)), flow.model_.encode(torch.zeros(1, 1, 8, 8)))
    with pytest.raises(ValueError, match="already holds a run"):
        flow.fit(X)


@pytest.mark.parametrize(
    ("X", "given", "message"),
    [
        (np.full((60, 64), 3.0), {"image_shape": (8, 8)}, "value_range"),
        (np.zeros((60, 8, 8, 2)), {}, r"images are \(N, H, W\) or"),
        (np.zeros((60, 64)), {"image_shape": (8, 9)}, r"image_shape \(8, 9\): does not fit"),
        (np.zeros((60, 8, 8)), {"image_shape": (4, 16)}, r"image_shape \(4, 16\): does not fit"),
        (np.random.default_rng(0).random((60, 64)), {"algorithm": "m-folw"}, "m-folw"),
        (np.random.default_rng(0).random((60, 64)), {"settings": {"sped": 3}}, "sped"),
        (np.random.default_rng(0).random((60, 64)), {"dim": 0}, "dim"),
        (np.random.default_rng(0).random((3, 64)), {"dim": 20}, "too few for 20 dimensions"),
    ],
)
def test_what_makes_no_sense_is_a_value_error_and_one_of_ours(X, given, message):
    flow = MFlow(device="cpu", **{**settings(TINY, steps=2), **given})
    with pytest.raises(ValueError, match=message) as raised:
        flow.fit(X)
    assert isinstance(raised.value, MfimageError)
    assert isinstance(raised.value, DataError | UsageError)


def test_its_example():
    assert doctest.testmod(sklearn).failed == 0
