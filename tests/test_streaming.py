"""Training on images that stay where they are, and on mirrored ones."""

import json
import threading
from dataclasses import replace

import pytest
import torch
from PIL import Image
from tiny import TINY, broken_off, draw_bumps, learn, model_weights, same_tensors, write_images

from mfimage import algorithms, load
from mfimage import phases as phases_module
from mfimage.config import Config
from mfimage.datasets import Points, StoredSet, loading
from mfimage.errors import DataError, UsageError
from mfimage.fit import shuffled
from mfimage.pretrained import weights_hash
from mfimage.views import points_seen

SHORT = replace(TINY, steps=12, density_steps=6, every=4)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("photos"), draw_bumps(120))


def read_by_threads():
    return [t for t in threading.enumerate() if t.name.startswith("mfimage-read")]


def test_it_is_the_training_of_a_set_in_memory(photos, tmp_path):
    stored = learn(photos, tmp_path / "stored", SHORT, memory=0)
    memory = learn(photos, tmp_path / "memory", SHORT)
    assert weights_hash(stored) == weights_hash(memory)
    data = [json.loads((tmp_path / name / "data.json").read_text()) for name in ("stored", "memory")]
    assert [one.get("sampled") for one in data] == [data[1]["count"], None]
    assert not read_by_threads()


@pytest.mark.parametrize("name", ["manifold", "refinement"])
def test_a_resumed_run_equals_an_unbroken_one(photos, tmp_path, name):
    learn(photos, tmp_path / "unbroken", SHORT, memory=0)
    with broken_off(8, name, RuntimeError("crashed")):
        learn(photos, tmp_path / "run", SHORT, memory=0)
    assert not read_by_threads()  # also after an error
    learn(photos, tmp_path / "run", resume=True, memory=0)
    assert same_tensors(model_weights(tmp_path / "run"), model_weights(tmp_path / "unbroken"))


def test_other_images_are_not_resumed_with(photos, tmp_path):
    data = write_images(tmp_path / "photos", draw_bumps(120, seed=1))
    learn(photos, tmp_path / "run", SHORT, memory=0)
    with pytest.raises(DataError, match="not the images that the run in"):
        learn(data, tmp_path / "run", resume=True, memory=0)


def test_bad_files_are_told_when_they_are_met(tmp_path, capfd):
    data = write_images(tmp_path / "photos", draw_bumps(400))
    names = load(data).paths
    (data / names[1]).write_bytes(b"")  # a file that the sample of 256 does not see
    learn(data, tmp_path / "run", replace(SHORT, steps=40), memory=0)
    said = capfd.readouterr().err
    assert "1 file skipped" in said
    assert f"{names[1]}: is empty (0 bytes)" in said


def test_photographs_of_mixed_sizes_are_scaled(tmp_path, monkeypatch):
    (data := tmp_path / "photos").mkdir()
    monkeypatch.setattr(loading, "PHOTO_SIZE", 16)
    for i in range(40):
        Image.new("L", (70 + i, 90), i).save(data / f"{i}.png")
    config = replace(SHORT, steps=0, density_steps=0, validation=5)
    model = learn(data, tmp_path / "run", config, memory=0)
    assert model.shape == (1, 16, 16)


def taken(photos, tmp_path, monkeypatch, config, **options):
    """What the steps of the manifold phase on images see, and the codes that the density is trained on."""
    seen, codes = [], []
    phase = algorithms.ALGORITHMS["m-flow"].phases[1]
    config = replace(config, model={**config.model, "bends": 0})  # there are no dense pairs
    real = phase.loss

    def loss(chart, batch, config):
        if torch.is_grad_enabled():
            seen.append(batch.x.clone())
        return real(chart, batch, config)

    def note(*arguments, **options):
        codes.append(points_seen(*arguments, **options))
        return codes[-1]

    (density,) = [one for one in algorithms.ALGORITHMS["m-flow"].phases if one.name == "density"]
    phases = (replace(phase, loss=loss), density)
    monkeypatch.setitem(
        algorithms.ALGORITHMS, "m-flow", replace(algorithms.ALGORITHMS["m-flow"], phases=phases)
    )
    monkeypatch.setattr(phases_module, "points_seen", note)
    model = learn(photos, tmp_path, config, **options)
    monkeypatch.undo()
    return seen, codes, model


@pytest.mark.parametrize("options", [{}, {"memory": 0}])
def test_flip_mirrors_about_half_of_every_epoch(photos, tmp_path, monkeypatch, options):
    plain, _, _ = taken(photos, tmp_path / "plain", monkeypatch, SHORT, **options)
    config = replace(SHORT, flip=True)
    flipped, codes, model = taken(photos, tmp_path / "flipped", monkeypatch, config, **options)
    again, _, _ = taken(photos, tmp_path / "again", monkeypatch, config, **options)
    assert all(torch.equal(a, b) for a, b in zip(flipped, again, strict=True))
    mirrored = torch.cat([(a != b).flatten(1).any(1) for a, b in zip(plain, flipped, strict=True)])
    assert 0.35 < mirrored.float().mean() < 0.65
    for a, b in zip(plain, flipped, strict=True):
        back = torch.where((a != b).flatten(1).any(1)[:, None, None, None], b.flip(3), b)
        assert torch.equal(back, a)
    training, held_out = codes
    half = len(training) // 2
    assert half + len(held_out) == len(load(photos))
    with torch.no_grad():
        x = model.decode(training.x[:half])
        y = model.decode(training.x[half:])
    assert (x.flip(3) - y).square().mean() < (x - y).square().mean()


def test_flip_is_for_images_and_true_or_false(tmp_path):
    points = Points(torch.randn(50, 4), "points")
    with pytest.raises(UsageError, match="points: flip is for images, not for vectors"):
        learn(points, tmp_path / "run", replace(SHORT, flip=True))
    with pytest.raises(UsageError, match="flip must be true or false, not 1"):
        Config(flip=1)


def test_the_batches_of_several_processes_are_read_ahead_alike(photos):
    images = load(photos, "all", memory=0)
    assert isinstance(images, StoredSet)
    for rank in range(2):
        rows = shuffled(len(images), 16, 3, rank, 2)
        with images.prefetched(rows, 20) as ahead:
            assert all(torch.equal(ahead(step), images.batch(rows(step))) for step in range(5, 20))
