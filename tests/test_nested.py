"""Nested codes: the first k are a manifold of their own, learned, drawn from and projected onto."""

from dataclasses import replace

import pytest
import torch
from commands import fails
from tiny import SHORT, TINY, bump_images, draw_bumps, learn, stats

from mfimage import Config, from_pretrained, load
from mfimage.algorithms import MANIFOLD, check_nested
from mfimage.errors import ModelError, UsageError
from mfimage.eval import PCA, squared_error

DIM = 4


@pytest.fixture(scope="module")
def images():
    return load(draw_bumps(400), "all")


@pytest.fixture(scope="module")
def run(images, tmp_path_factory):
    """A run that learned nested codes, with a refinement of the chart after the dense pairs."""
    folder = tmp_path_factory.mktemp("runs") / "nested"
    learn(images, folder, replace(TINY, dim=DIM, nested=True, steps=200))
    return folder


def error(model, x, dim=None):
    with torch.no_grad():
        return float(squared_error(x, model.project(x, dim=dim)).mean())


def test_every_leading_part_is_better_than_as_many_principal_components(run, images):
    model, x = from_pretrained(run), bump_images(200)
    assert model.config.nested
    errors = [error(model, x, k) for k in range(1, DIM + 1)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] == error(model, x)
    linear = [float(squared_error(x, PCA.of(images, k).project(x)).mean()) for k in range(1, DIM + 1)]
    assert all(ours < other for ours, other in zip(errors, linear, strict=True)), (errors, linear)


def test_both_phases_of_the_chart_cut_codes(images, tmp_path):
    first = {}
    for nested in (False, True):
        learn(images, tmp_path / str(nested), replace(SHORT, dim=DIM, nested=nested, every=1))
        lines = stats(tmp_path / str(nested))
        first[nested] = {phase: next(x for x in lines if x["phase"] == phase) for phase in MANIFOLD}
    for phase in MANIFOLD:  # the same images: the loss is of cut codes, the error of images held out is not
        assert first[True][phase]["loss"] > 1.5 * first[False][phase]["loss"]
        assert first[True][phase]["validation"] == pytest.approx(first[False][phase]["validation"], rel=0.2)


def test_codes_that_were_not_nested_are_not_cut(images, tmp_path):
    model = learn(images, tmp_path, replace(SHORT, dim=DIM))
    for cut in (lambda: model.project(bump_images(2), dim=1), lambda: model.sample(2, dim=1)):
        with pytest.raises(ModelError, match="--nested makes one that does"):
            cut()


def test_samples_of_leading_codes_lie_on_their_manifold(run):
    model = from_pretrained(run)
    whole, cut = (model.sample(20, torch.Generator().manual_seed(1), dim=k) for k in (None, 2))
    assert torch.equal(model.sample(20, torch.Generator().manual_seed(1), dim=DIM), whole)
    assert not torch.allclose(cut, whole, atol=1e-3)
    with torch.no_grad():
        assert model.encode(cut)[:, 2:].abs().max() < 1e-4
        torch.testing.assert_close(model.project(cut, dim=2), cut, atol=1e-5, rtol=0)
    for wrong in (0, DIM + 1, 1.5):
        with pytest.raises(UsageError, match="dim must"):
            model.sample(1, dim=wrong)


def test_from_the_command_line(mfimage, run, tmp_path):
    folder = tmp_path / "samples"
    code, _, err = mfimage("sample", "--model", run, "-n", 3, "--dim", 2, "-o", folder)
    assert code == 0, err
    assert "from the first 2 codes" in err
    assert len(list(folder.glob("sample-*.png"))) == 3
    wrong = mfimage("sample", "--model", run, "--dim", 9, "-o", tmp_path / "no")
    assert fails(wrong, 2, "dim must lie in 1 … 4")


def test_other_algorithms_refuse():
    with pytest.raises(UsageError, match="nested codes are not learned by af"):
        check_nested(Config(algorithm="af", nested=True))
    check_nested(Config(algorithm="pae", nested=True))
