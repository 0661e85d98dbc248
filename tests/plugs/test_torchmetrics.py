"""Features of ours in torchmetrics."""

import doctest

import pytest
import torch
from tiny import bump_images

from mfimage.eval import frechet_distance
from mfimage.plugs import torchmetrics
from mfimage.plugs.torchmetrics import FeatureModule, scattering_features


@pytest.fixture
def fid():
    """The class of torchmetrics, whose package imports torchvision."""
    from mfimage._torchvision import import_torchvision

    import_torchvision()
    pytest.importorskip("torchmetrics")
    return pytest.importorskip("torchmetrics.image.fid").FrechetInceptionDistance


class Pixels:
    """A few pixels as features."""

    name, dim, weights = "pixels", 6, ""

    def __call__(self, images):
        return images.flatten(1)[:, 20:26]


def test_the_distance_of_torchmetrics_with_our_features_is_ours(fid):
    real, fake = bump_images(60, seed=0), bump_images(50, seed=1) ** 1.3
    for module in (FeatureModule(Pixels()), scattering_features(1)):
        metric = fid(feature=module, normalize=True)
        for part in real.split(25):
            metric.update(part, real=True)
        metric.update(fake, real=False)
        ours = frechet_distance(module(fake), module(real))
        assert ours > 1e-3
        assert float(metric.compute()) == pytest.approx(ours, rel=1e-3)


def test_bytes_and_floats_have_the_same_features():
    x = bump_images(4)
    module = scattering_features(1)
    assert module(x).shape == (4, module.num_features)
    torch.testing.assert_close(module((255 * x).round().to(torch.uint8)), module(x))


def test_its_example():
    assert doctest.testmod(torchmetrics).failed == 0
