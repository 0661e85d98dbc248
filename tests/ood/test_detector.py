import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from tiny import bump_images, draw_bumps
from torch.utils.data import TensorDataset

from mfimage import (
    Detector,
    ModelConfig,
    build,
    from_pretrained,
    load,
    save_pretrained,
)
from mfimage.datasets import Points
from mfimage.errors import DataError, ModelError, UsageError
from mfimage.ood import drift_of
from mfimage.ood.scores import CHOICES
from mfimage.ood.statistics import UNSOUND
from mfimage.ood.verdicts import power
from mfimage.pretrained import read_calibration, write_calibration


@pytest.fixture
def detector(model):
    return Detector(model).calibrate(bump_images(600, 11), 0.02)


STRANGE = {
    "blurred": lambda x: torch.from_numpy(gaussian_filter(x.numpy(), (0, 0, 2, 2), mode="nearest")),
    "constant": lambda x: torch.linspace(0, 1, len(x)).view(-1, 1, 1, 1).expand_as(x).contiguous(),
    "noise": lambda x: torch.rand(x.shape, generator=torch.Generator().manual_seed(0)),
    "black": torch.zeros_like,
    "white": torch.ones_like,
}


@pytest.mark.parametrize("kind", STRANGE)
def test_what_reconstruction_misses_is_strange(detector, kind):
    found = detector.score(STRANGE[kind](bump_images(30, 5)))
    assert found.scores.isfinite().all()
    assert (found.p_values < 0.02).all()
    assert found.is_ood.all()
    assert all(found.reasons)


@pytest.mark.parametrize("score", ["auto", "reconstruction", "two-sided", "latent", "joint", "typicality"])
def test_familiar_images_have_uniform_p_values(model, score):
    detector = Detector(model, score).calibrate(bump_images(1000, 11), 0.05)
    found = detector.score(bump_images(1000, 12))
    # 400 calibration and 1,000 fresh images: a share q has variance q (1 − q) (1/400 + 1/1000).
    for q in (0.05, 0.25, 0.5, 0.75):
        share = float((found.p_values <= q).double().mean())
        assert abs(share - q) < 4 * (q * (1 - q) * (1 / 400 + 1 / 1000)) ** 0.5
    assert float(found.is_ood.double().mean()) < 0.05 + 4 * (0.05 * 0.95 * 0.0035) ** 0.5
    assert torch.equal(found.is_ood, found.p_values <= 0.05)


def test_the_threshold_is_the_conformal_order_statistic(detector):
    known = detector.calibration
    assert len(known.scores) == 240
    assert detector.threshold_ == known.scores[237 - 1]  # ⌈241 · 0.98⌉ = 237


def test_what_a_calibration_promises_holds_in_nineteen_of_twenty(detector):
    generator, held = torch.Generator().manual_seed(0), 0
    for _ in range(400):
        scores = torch.rand(150, generator=generator).double().sort().values
        known = replace(detector.calibration, scores=scores, alpha=0.04)
        low, high = known.false_alarms
        held += low <= 1 - known.threshold <= high
    assert held / 400 == pytest.approx(0.95, abs=0.04)
    assert "of familiar images 1.48% to 7.61%" in known.promise


def test_a_verdict_says_in_which_way_an_image_is_strange(detector):
    """The two p-values count in proportion to their shares of α, 80 and 20 %."""
    found = detector.score(bump_images(3, 5))
    ways = torch.tensor([[0.004, 0.3], [0.01, 0.001], [0.004, 0.002]]).double()
    strange = replace(found, ways=ways, is_ood=torch.ones(3, dtype=torch.bool))
    assert strange.ordinary.tolist() == [False, True, False]
    assert [reason.startswith("too ordinary: ") for reason in strange.reasons] == [False, True, False]
    assert strange.counted == "3 of 3 images are strange, 1 of them too ordinary"
    said = replace(strange, p_values=torch.tensor([0.6, 0.002, 0.01]).double()).sentences
    assert said[1].startswith("strange, too ordinary: ")
    assert said[1].endswith("; at most one familiar image in 500 is as strange")
    assert said[2].startswith("strange, far out: ")
    assert found.sentences[0].startswith("familiar: ")
    familiar = detector.score(bump_images(400, 6)).ways
    for way in familiar.T:
        assert abs(float((way <= 0.25).double().mean()) - 0.25) < 0.12


def test_the_share_found_is_told_at_every_rate_that_the_calibration_reaches(detector):
    known, scores = detector.calibration, detector.calibration.scores
    found = power(known.scores, torch.cat([scores[:50], scores[-1:] + torch.ones(50)]))
    assert found == {0.05: 0.5, 0.01: 0.5, 0.001: None}


def test_too_few_images_are_told_before_any_work(model, monkeypatch):
    monkeypatch.setattr(Detector, "_statistics", lambda *_: pytest.fail("worked in vain"))
    with pytest.raises(UsageError, match="too few for alpha"):
        Detector(model).calibrate(Points(bump_images(50), "bumps"), 0.001)
    with pytest.raises(UsageError, match="alpha lies between 0 and 1"):
        Detector(model).calibrate(Points(bump_images(50), "bumps"), 2.0)


@pytest.mark.parametrize("score", ["auto", "reconstruction", "complexity"])
def test_images_that_join_later_count_as_if_they_had_been_there(model, score, tmp_path):
    """The same density, the same scores: nothing is lost or kept of the order in which they came."""
    first, later, density = bump_images(120, 1), bump_images(80, 2), bump_images(300, 3)
    joined = Detector(model, score).calibrate(first, 0.02, density).update(later)
    known = Detector(model, score).calibrate(torch.cat([first, later]), 0.02, density).calibration
    assert joined.threshold_ == known.threshold
    for name in ("scores", "surprises"):
        assert torch.equal(getattr(joined.calibration, name), getattr(known, name))
    assert torch.equal(joined.calibration.values.sort(0).values, known.values.sort(0).values)
    joined.save(tmp_path)
    assert torch.equal(Detector.load(tmp_path, model).calibration.scores, known.scores)
    with pytest.raises(UsageError, match="not calibrated"):
        Detector(model, score).update(later)


def test_another_share_of_false_alarms_is_another_threshold(detector):
    strict = detector.with_alpha(0.005)
    assert strict.threshold_ == detector.calibration.scores[240 - 1]  # ⌈241 · 0.995⌉ = 240
    assert detector.calibration.alpha == 0.02
    with pytest.raises(UsageError, match="999 are needed"):
        detector.with_alpha(0.001)


def test_the_strangest_calibration_images_are_told_and_dropped_on_request_alone(model, tmp_path):
    images, density = bump_images(200, 1), bump_images(300, 3)
    images[[17, 90]] = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    detector = Detector(model).calibrate(images, 0.02, density)
    found, promise = detector.strangest_, detector.calibration.promise
    assert {one.row for one in found[:2]} == {17, 90}
    assert [one.p_value for one in found] == [0.01, 0.01, 0.015, 0.02, 0.025]  # of 200, the first two alike
    assert not any(one.dropped for one in found)
    assert "dropped" not in promise
    for drop in (2, [90, 17]):
        known = Detector(model).calibrate(images, 0.02, density, drop=drop).calibration
        assert (len(known.scores), known.dropped) == (198, 2)
        assert torch.equal(known.scores, detector.calibration.scores[:198])
        assert "of images like those kept" in known.promise
        assert "2 calibration images dropped on request: if such are familiar too" in known.promise
    least = Detector(model).calibrate(images, 0.02, density, drop=2)
    assert [one.dropped for one in least.strangest_] == [True, True, False, False, False]
    least.save(tmp_path)
    assert Detector.load(tmp_path, model).calibration.promise == least.calibration.promise


@pytest.mark.parametrize("drop", [-1, 1.5, [200], ["a"], 199])
def test_what_cannot_be_dropped_is_refused(model, drop):
    with pytest.raises(UsageError, match=r"drop|too few for alpha"):
        Detector(model, "reconstruction").calibrate(bump_images(200, 1), 0.02, bump_images(50, 3), drop=drop)


def test_pyod_names(detector):
    x = torch.cat([bump_images(3, 5), torch.zeros(1, 1, 8, 8)])
    assert detector.decision_function(x).shape == (4,)
    assert (detector.predict(x) == (detector.decision_function(x) > detector.threshold_)).all()
    assert detector.predict(x)[3] == 1


def test_too_few_images_are_told_how_many_are_needed(model):
    with pytest.raises(UsageError, match="99 are needed"):
        Detector(model, "reconstruction").calibrate(bump_images(98, 1), 0.01, bump_images(20, 2))
    Detector(model, "reconstruction").calibrate(bump_images(99, 1), 0.01, bump_images(20, 2))
    with pytest.raises(UsageError, match="249 in all"):
        Detector(model).calibrate(bump_images(100, 1), 0.01)
    Detector(model).calibrate(bump_images(249, 1), 0.01)


def test_misuse(model):
    with pytest.raises(UsageError, match="choose from auto"):
        Detector(model, "nonsense")
    with pytest.raises(UsageError, match="not calibrated"):
        Detector(model).score(bump_images(1, 1))
    with pytest.raises(UsageError, match="between 0 and 1"):
        Detector(model).calibrate(bump_images(30, 1), 1.5)
    with pytest.raises(DataError, match="trained on 8 × 8"):
        Detector(model).calibrate(torch.zeros(9, 1, 4, 4))


def test_a_set_is_the_same_as_its_images_by_whatever_way_they_come(detector, tmp_path):
    images = draw_bumps(30, seed=5)
    np.save(tmp_path / "bumps.npy", images)
    (tmp_path / "folder").mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "folder" / f"{i}.png")
    expected = detector.score(bump_images(30, 5)).scores
    ways = {
        "array": images[..., None],
        "stack": images,
        "stacked tensor": bump_images(30, 5)[:, 0],
        "data set": TensorDataset(bump_images(30, 5)),
        "set": load(tmp_path / "bumps.npy", "all"),
        "name": str(tmp_path / "bumps.npy"),
        "folder": tmp_path / "folder",
        "list": [tmp_path / "folder"],
    }
    for name, way in ways.items():
        torch.testing.assert_close(detector.score(way).scores, expected, msg=name)
    one = detector.score(tmp_path / "folder" / "3.png").scores
    torch.testing.assert_close(one, expected[3:4], rtol=1e-5, atol=1e-5)
    again = Detector(detector.model, "latent").calibrate(tmp_path / "bumps.npy", 0.1)
    assert again.threshold_ == Detector(detector.model, "latent").calibrate(images[..., None], 0.1).threshold_


def test_a_calibration_is_read_as_it_was_saved(detector, model, tmp_path):
    path = detector.save(tmp_path)
    again = Detector.load(tmp_path, model)
    x = bump_images(20, 5)
    torch.testing.assert_close(again.score(x).scores, detector.score(x).scores)
    assert again.threshold_ == detector.threshold_
    assert json.loads(path.read_text())["detector"]["alpha"] == 0.02
    assert model.measured["detector"] == json.loads(path.read_text())["detector"]


def test_a_calibration_of_another_model_is_refused(detector, model, tmp_path):
    detector.save(tmp_path)
    with torch.no_grad():
        next(model.parameters()).add_(1e-3)
    with pytest.raises(ModelError, match="another model"):
        Detector.load(tmp_path, model)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("score", "other"), ("score", "latent"), ("alpha", 2), ("alpha", "x"),
        ("scores", []), ("scores", [3.0, 1.0]), ("scores", None), ("values", [[1.0]]), ("spread", [0.0] * 7),
        ("alpha", 1e-320), ("alpha", 10**400), ("scores", [10**400]), ("scores", [True, "x"]),
        ("usual", {}), ("evidence", None), ("evidence", {}), ("surprises", [[1.0, 1.0]]),
        ("evidence", {"full": "no"}), ("spread", [0.0] * 8), ("values", None),
    ],
)  # fmt: skip
def test_a_damaged_calibration_is_refused(detector, model, tmp_path, key, value):
    stored = detector.calibration.to_json() | {key: value}
    write_calibration(tmp_path, {"detector": stored})
    with pytest.raises(ModelError, match=r"calibration\.json: damaged"):
        Detector.load(tmp_path, model)


@pytest.mark.parametrize("other", ["features", "codes"])
def test_a_calibration_of_other_sizes_than_the_model_s_is_refused(detector, model, tmp_path, other):
    stored = detector.calibration.to_json()
    usual, codes = stored["usual"], [[*row, 0.0] for row in stored["usual"]["codes"]]
    if other == "features":
        stored["evidence"]["full"] = not stored["evidence"]["full"]
    else:
        stored["usual"] = usual | {"codes": codes, "scale": [*usual["scale"], 1.0]}
    write_calibration(tmp_path, {"detector": stored})
    with pytest.raises(
        ModelError, match=r"calibration\.json: damaged: .* \((it has codes of|its density sees)"
    ):
        Detector.load(tmp_path, model)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"format"'])
def test_a_file_that_is_no_calibration_is_refused(model, tmp_path, text):
    (tmp_path / "calibration.json").write_text(text)
    with pytest.raises(ModelError, match=r"calibration\.json: not a readable .* delete it, and calibrate"):
        Detector.load(tmp_path, model)


@pytest.mark.parametrize("sections", [{}, {"familiar": {"score": 0.1, "coarse": 0.1}}])
def test_a_missing_calibration_is_told(model, tmp_path, sections):
    write_calibration(tmp_path, sections)
    with pytest.raises(ModelError, match="calibrate the model first"):
        Detector.load(tmp_path, model)


def test_calibrating_again_replaces_the_detector_alone(detector, tmp_path):
    others = {"denoising": {"whole": 1, "cut": 2}, "familiar": {"score": 0.1, "coarse": 0.2}}
    write_calibration(tmp_path, others)
    for one in (detector, Detector(detector.model, "latent").calibrate(bump_images(600, 12), 0.05)):
        one.save(tmp_path)
        sections = read_calibration(tmp_path)
        assert sections == others | {"detector": one.calibration.to_json()}


@pytest.mark.parametrize("written_by", ["mfimage-calibration-2", "mfimage-calibration-1"])
def test_a_file_of_a_detector_alone_as_it_was_before_there_were_sections(
    detector, model, tmp_path, written_by
):
    """The latest form is read, older ones are refused in words; and the weights beside them load."""
    save_pretrained(model, tmp_path)
    values = detector.calibration.to_json()
    if written_by == "mfimage-calibration-1":
        values["mixture"] = values.pop("evidence")
    (tmp_path / "calibration.json").write_text(json.dumps({"format": written_by, **values}))
    again = from_pretrained(tmp_path)
    if written_by == "mfimage-calibration-1":
        with pytest.raises(ModelError, match="damaged: calibrate the model again"):
            Detector.load(tmp_path, again)
    else:
        assert Detector.load(tmp_path, again).threshold_ == detector.threshold_


def test_a_model_without_a_manifold_is_refused():
    with pytest.raises(ModelError, match="no manifold"):
        Detector(build(ModelConfig((1, 8, 8), 2, kind="ambient-flow", width=2, hidden=8)))


def test_drift_fires_on_a_shift_and_not_without(detector):
    same = drift_of(detector.score(bump_images(200, 5)), detector.calibration)
    assert not same.shifted
    assert same.changed == ()
    assert set(same.p_values) >= {"score", "brightness", "detail"}
    darker = drift_of(detector.score(0.9 * bump_images(200, 5)), detector.calibration)
    assert darker.shifted
    assert "brightness" in darker.changed


def test_drift_seldom_fires_on_sets_that_are_the_same(detector):
    fired = [
        drift_of(detector.score(bump_images(60, 100 + i)), detector.calibration, 0.05).shifted
        for i in range(40)
    ]
    assert sum(fired) <= 7  # 40 at 5 %: more than 7 come once in a thousand


def test_drift_asks_for_a_set(detector):
    with pytest.raises(UsageError, match="too few"):
        drift_of(detector.score(bump_images(2, 5)), detector.calibration)


@pytest.fixture
def broken(model, monkeypatch):
    """A model that draws no numbers of half of all images."""
    decode, middle = model.chart.decode, model.encode(bump_images(600, 11))[:, 0].median().detach()

    def nowhere(u, context=None):
        return decode(u, context).where((u[:, 0] < middle).view(-1, 1, 1, 1), torch.nan)

    return model, lambda: monkeypatch.setattr(model.chart, "decode", nowhere)


@pytest.mark.parametrize("score", CHOICES)
def test_a_score_that_is_not_finite_is_strange_and_says_why(broken, score):
    model, damage = broken
    detector = Detector(model, score).calibrate(bump_images(600, 11), 0.05)
    damage()
    found = detector.score(bump_images(40, 5))
    lost = ~found.scores.isfinite()
    assert 0 < lost.sum() < 40
    assert found.is_ood[lost].all()
    assert (found.p_values[lost] == found.p_values.min()).all()
    assert {found.reasons[i] for i in lost.nonzero()} == {"the model gives no finite numbers for it"}
    assert {found.sentences[i] for i in lost.nonzero()} == {f"strange: {UNSOUND}"}


def test_nothing_is_calibrated_on_what_is_not_finite(broken):
    model, damage = broken
    damage()
    for score in ("auto", "reconstruction", "complexity"):
        with pytest.raises(ModelError, match=r"no finite numbers for .* calibration images"):
            Detector(model, score).calibrate(bump_images(600, 11), 0.05)
