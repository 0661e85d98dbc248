import pytest

from mfimage.eval import evaluation


class Few:
    """Six numbers of an image."""

    name, dim, weights = "few", 6, "abc"

    def __call__(self, images):
        return images.flatten(1)[:, 20:26].double()


@pytest.fixture
def few(monkeypatch):
    """What evaluations take for an Inception."""
    monkeypatch.setattr(evaluation, "InceptionFeatures", lambda *_: Few())
    monkeypatch.setattr(evaluation, "find_inception_weights", lambda path: path)
    return Few()
