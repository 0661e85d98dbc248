"""How strange each pixel is, and at which rate familiar ones are."""

from dataclasses import replace

import pytest
import torch
from tiny import bump_images

from mfimage import Detector
from mfimage.errors import ModelError, UsageError
from mfimage.ood import maps
from mfimage.ood.maps import ENERGIES, FAMILIAR_PIXELS, MEANS, SIGMAS, Surroundings, describe
from mfimage.pretrained import write_calibration

ALPHA = 0.05


@pytest.fixture(scope="module")
def detector(noise_aware):
    torch.set_num_threads(1)
    return Detector(noise_aware).calibrate(bump_images(800, 11), ALPHA, maps=True)


def with_spots(x):
    """Images with a square of noise in their upper left corners."""
    spoiled = x.clone()
    noise = torch.rand(len(x), 1, 3, 3, generator=torch.Generator().manual_seed(0))
    spoiled[:, :, :3, :3] = (noise > 0.5).float()
    return spoiled


def test_features_are_finite_whatever_is_shown(noise_aware, model):
    x = torch.cat([bump_images(2, 5), torch.full((1, 1, 8, 8), 1e30), torch.full((1, 1, 8, 8), torch.nan)])
    for flow, residuals in ((noise_aware, 1 + len(SIGMAS)), (model, 1)):
        features, projection = describe(x, flow)
        assert features.shape == (4, residuals * (len(MEANS) + len(ENERGIES)), 8, 8)
        assert features.isfinite().all()
        torch.testing.assert_close(projection[:2], flow.project(x[:2]).clamp(0, 1))


@pytest.mark.parametrize("spots", [False, True])
def test_distances_are_in_standard_deviations(monkeypatch, spots):
    """Squares of them, of normal features, have as mean their number, whatever is usual for each pixel."""
    monkeypatch.setattr(maps, "SMOOTH", 0.0)
    generator = torch.Generator().manual_seed(0)
    where, wide = torch.randn(3, 6, 6, generator=generator), 1 + torch.rand(3, 6, 6, generator=generator)
    mix = torch.tensor([[1.0, 0, 0], [0.8, 0.6, 0], [0, 0, 1]])

    def draw(count):
        plain = torch.einsum("ij,bjhw->bihw", mix, torch.randn(count, 3, 6, 6, generator=generator))
        return 100 * (where + wide * plain)

    known = maps._fitted(draw(2000), generator, seed=0)
    fresh = draw(500)
    fresh[:, :, 2, 3] += 100 * 10 * spots
    squares = known.distances(fresh).square().mean(0)
    if spots:
        assert squares.flatten().argmax() == 2 * 6 + 3
        assert squares[2, 3] > 20
    else:
        assert float(squares.mean()) == pytest.approx(3, rel=0.1)
        assert float(squares.std()) < 0.5


def test_familiar_images_have_strange_places_at_the_rate_that_was_asked_for(detector):
    count, known = 600, detector.calibration.maps
    places = detector.score(bump_images(count, 12), maps=True).places
    masked = sum(bool(place.boxes) for place in places) / count
    error = (ALPHA * (1 - ALPHA) * (1 / count + 1 / len(known.peaks))) ** 0.5
    assert abs(masked - ALPHA) < 4 * error
    heat = torch.stack([place.heat for place in places])
    assert float(heat.median()) == pytest.approx(0, abs=0.05)
    assert float((heat.flatten(1).amax(1) > 1).double().mean()) == masked
    far = known.distances(describe(bump_images(count, 12), detector.model)[0])
    assert float((far > known.edge).double().mean()) == pytest.approx(1 - FAMILIAR_PIXELS, abs=0.006)


def test_what_does_not_belong_is_found_where_it_is(detector):
    x = bump_images(40, 5)
    places = detector.score(with_spots(x), maps=True).places
    heat = torch.stack([place.heat for place in places])
    assert (heat[:, :3, :3].amax((1, 2)) > 1).double().mean() > 0.9
    assert heat[:, :3, :3].mean() > 2 * heat[:, 5:, 5:].mean()
    inside = [all(box[0] < 3 and box[1] < 3 for box in place.boxes[:1]) for place in places]
    assert sum(inside) > 30
    repaired = torch.stack([place.repaired for place in places])
    assert (repaired - x)[:, :, :3, :3].square().mean() < (with_spots(x) - x)[
        :, :, :3, :3
    ].square().mean() / 2


def test_maps_are_read_as_they_were_saved(detector, tmp_path):
    detector.save(tmp_path)
    again, x = Detector.load(tmp_path, detector.model), with_spots(bump_images(6, 5))
    for one, other in zip(detector.score(x, maps=True).places, again.score(x, maps=True).places, strict=True):
        assert torch.equal(one.heat, other.heat)
        assert one.boxes == other.boxes
    assert not again.score(x).places  # which takes longer, unless it is asked for


def test_a_calibration_without_maps_is_read_and_says_so(detector, model, tmp_path):
    stored = detector.calibration.to_json() | {"heat": 0.1}  # as it was before
    del stored["maps"]
    write_calibration(tmp_path, {"detector": stored})
    old, x = Detector.load(tmp_path, detector.model), bump_images(5, 5)
    assert torch.equal(old.score(x).scores, detector.score(x).scores)
    for one in (old, Detector(model, "latent").calibrate(bump_images(100, 1), 0.05)):
        with pytest.raises(UsageError, match=r"calibrated without maps .* calibrate again"):
            one.score(x, maps=True)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("peaks", []),
        ("peaks", [2.0, 1.0]),
        ("edge", -1.0),
        ("spread", [[[0.0]]]),
        ("mean", [[[1.0]]]),
        ("shift", []),
    ],
)
def test_damaged_maps_are_refused(detector, tmp_path, key, value):
    stored = detector.calibration.to_json()
    stored["maps"] = stored["maps"] | {key: value}
    write_calibration(tmp_path, {"detector": stored})
    with pytest.raises(ModelError, match=r"calibration\.json: damaged"):
        Detector.load(tmp_path, detector.model)


def test_maps_of_a_model_that_sees_more_are_refused(detector, tmp_path):
    known = detector.calibration.maps
    fewer = Surroundings(
        known.shift[:1], known.scale[:1], known.mean[:1], known.spread[:1],
        replace(known.mixture, means=known.mixture.means[:, :1], shift=known.mixture.shift[:1],
                scale=known.mixture.scale[:1], factors=known.mixture.factors[:, :1, :1]),
        known.middle, known.edge, known.peaks,
    )  # fmt: skip
    stored = replace(detector.calibration, maps=fewer).to_json()
    write_calibration(tmp_path, {"detector": stored})
    with pytest.raises(ModelError, match="its maps see 1 features"):
        Detector.load(tmp_path, detector.model)


def test_of_few_images_the_largest_peak_is_the_level(detector):
    known = detector.calibration
    few = replace(known, maps=replace(known.maps, peaks=known.maps.peaks[-7:]))
    largest = float(known.maps.peaks[-1])
    looked = torch.full((2, 2, 8, 8), float(known.maps.middle))
    looked[1, 0, 4, 4] = largest + 1e-3
    assert [place.boxes for place in few.places(looked)] == [[], [(4, 4, 5, 5)]]
