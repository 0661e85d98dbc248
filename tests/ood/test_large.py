"""Pictures larger than the model: windows, and one map for the whole."""

from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import bump_images

from mfimage import Detector
from mfimage.config import Reading
from mfimage.errors import DataError, UsageError
from mfimage.ood.large import LargePictures, score_large
from mfimage.tiles import starts


@pytest.fixture
def detector(model):
    return Detector(model, "reconstruction").calibrate(
        bump_images(200, 11), 0.05, bump_images(20, 3), maps=True
    )


def test_a_picture_of_the_model_s_size_is_judged_as_ever(detector):
    x = bump_images(1, 5)
    one, found = detector.score(x, maps=True), score_large(detector, x[0])
    assert found.scores.tolist() == one.scores.tolist()
    assert found.is_ood.tolist() == one.is_ood.tolist()
    assert found.reasons == one.reasons
    torch.testing.assert_close(found.places[0].heat, one.places[0].heat)
    torch.testing.assert_close(found.places[0].repaired, one.places[0].repaired)


def test_the_strangest_window_speaks_for_the_whole(detector):
    """A picture of dark places, with noise in one of them."""
    picture = torch.zeros(1, 20, 29)
    picture[:, 12:20, 16:24] = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0))
    found = score_large(detector, picture)
    corners = product(starts(20, 8, 0.5), starts(29, 8, 0.5))
    windows = torch.stack([picture[:, a : a + 8, b : b + 8] for a, b in corners])
    assert found.scores.shape == (1,)
    assert float(found.scores) == pytest.approx(float(detector.score(windows).scores.max()))
    assert found.is_ood[0]
    place = found.places[0]
    assert place.heat.shape == place.mask.shape == (20, 29)
    assert place.repaired.shape == (1, 20, 29)
    row, column = divmod(int(place.heat.argmax()), 29)
    assert row >= 11
    assert 15 <= column <= 24
    assert place.heat[14:, 18:22].mean() > place.heat[:8, :8].mean() + 0.5


def test_what_is_too_small_or_several_is_told(detector, model, tmp_path):
    with pytest.raises(DataError, match=r"picture: 7 × 30 pixels are less than a window of 8 × 8"):
        score_large(detector, torch.zeros(1, 7, 30))
    with pytest.raises(DataError, match="2 pictures: give one"):
        score_large(detector, torch.zeros(2, 1, 9, 9))
    with pytest.raises(UsageError, match="calibrated without maps"):
        score_large(Detector(model, "latent").calibrate(bump_images(60, 1), 0.1), torch.zeros(1, 9, 9))


def test_files_that_cannot_be_scored_are_noted(detector, tmp_path):
    for name, size in (("a", (12, 20)), ("b", (4, 40)), ("c", (9, 9))):
        Image.fromarray(np.zeros(size, np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "d.png").write_bytes(b"no image")
    pictures = LargePictures.listed([str(tmp_path)], Reading(max_bad=0.5))
    found = {path: verdicts.places[0].heat.shape for path, verdicts in pictures.scored(detector)}
    assert found == {str(tmp_path / "a.png"): (12, 20), str(tmp_path / "c.png"): (9, 9)}
    assert [one.path for one in pictures.skipped] == [str(tmp_path / "b.png"), str(tmp_path / "d.png")]
    assert "less than a window" in pictures.skipped[0].reason
    with pytest.raises(DataError, match=r"more than the share of 0\.1"):
        list(LargePictures.listed([str(tmp_path)], Reading(max_bad=0.1)).scored(detector))
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        LargePictures.listed([str(tmp_path / "none")])
