"""Models that are saved and read again, from a directory or the Hub."""

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path

import huggingface_hub
import pytest
import torch
from commands import raising
from hostile import edit_json, edit_tensors
from tiny import SMALL_MODEL, contents

from mfimage import ManifoldFlow, ModelConfig, build, from_pretrained, save_pretrained
from mfimage.errors import ModelError, ResourceError
from mfimage.pretrained import weights_hash, write_calibration
from mfimage.settings import from_json

DATA = Path(__file__).parent / "data"
FOUND = {"familiar": {"score": 0.25, "coarse": 0.5}, "denoising": {"whole": [1.0], "cut": float("inf")}}


def test_a_model_comes_back_exactly(saved_model):
    model, again = build(SMALL_MODEL, seed=3), from_pretrained(saved_model)
    assert not again.training
    assert again.shape == model.shape
    assert again.config == model.config
    weights = again.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(model.eval().project(x), again.project(x))
    assert sorted(os.listdir(saved_model)) == ["config.json", "model.safetensors"]


def test_a_run_directory_stands_for_its_model(saved_model):
    assert weights_hash(from_pretrained(saved_model.parent)) == weights_hash(from_pretrained(saved_model))


def test_seeds_make_weights_and_leave_the_global_state():
    state = torch.get_rng_state()
    assert weights_hash(build(SMALL_MODEL, seed=1)) == weights_hash(build(SMALL_MODEL, seed=1))
    assert weights_hash(build(SMALL_MODEL, seed=1)) != weights_hash(build(SMALL_MODEL, seed=2))
    assert torch.equal(torch.get_rng_state(), state)


def test_the_hash_sees_one_weight():
    model = build(SMALL_MODEL)
    before = weights_hash(model)
    with torch.no_grad():
        model.chart.subspace.rotation.mean[5] += 1e-6
    assert weights_hash(model) != before


def test_a_model_put_together_by_hand_cannot_be_saved(tmp_path):
    model = build(SMALL_MODEL)
    with pytest.raises(ModelError, match="build or train"):
        save_pretrained(ManifoldFlow(model.chart, model.density, model.shape), tmp_path)


def test_an_unfinished_run_is_told_from_a_folder_without_a_model(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(ModelError, match="has not finished: continue it with mfimage train --resume"):
        from_pretrained(tmp_path)


def test_what_was_found_out_about_a_model_comes_back_with_it(tmp_path):
    model = build(SMALL_MODEL)
    model.measured = FOUND
    save_pretrained(model, tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["calibration.json", "config.json", "model.safetensors"]
    again = from_pretrained(tmp_path)
    assert again.measured == FOUND
    save_pretrained(build(SMALL_MODEL, seed=1), tmp_path)  # of which nothing is known
    assert sorted(os.listdir(tmp_path)) == ["config.json", "model.safetensors"]
    save_pretrained(again, tmp_path)
    assert from_pretrained(tmp_path).measured == FOUND


def test_what_stood_in_the_configuration_before_there_was_a_calibration_is_read(saved_model):
    edit_json(saved_model / "config.json", measured=FOUND)
    assert from_pretrained(saved_model).measured == FOUND
    write_calibration(saved_model, {"detector": {"alpha": 0.1}})
    assert from_pretrained(saved_model).measured == FOUND | {"detector": {"alpha": 0.1}}


def test_hub_ids_are_asked_of_the_hub(saved_model, monkeypatch):
    asked = []
    monkeypatch.setattr(
        huggingface_hub, "hf_hub_download", lambda *given, **_: asked.append(given) or saved_model / given[1]
    )
    assert weights_hash(from_pretrained("someone/clothes")) == weights_hash(from_pretrained(saved_model))
    names = "config.json", "calibration.json", "model.safetensors"  # the large one last
    assert asked == [("someone/clothes", name) for name in names]


def test_without_network_a_hub_id_is_a_model_error_in_one_line(monkeypatch):
    offline = raising(ConnectionError("no route to the host\nand a long story"))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    with pytest.raises(ModelError, match=r"someone/clothes: .*the Hub gave an error \(no route") as caught:
        from_pretrained("someone/clothes")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", ["runs/latest", "./model", "a/b/c", "model", "/nowhere/model", "made/up"])
def test_a_mistyped_path_never_reaches_the_network(source, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "made").mkdir()
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: pytest.fail("asked the Hub"))
    with pytest.raises(ModelError, match="no such directory"):
        from_pretrained(source)


@pytest.mark.parametrize("synced", range(3))
def test_a_full_disk_leaves_the_model_that_was_there(saved_model, monkeypatch, synced):
    sync, done, before = os.fsync, [], contents(saved_model)

    def full(number):
        if len(done) == synced:
            raise OSError(28, "No space left on device")
        done.append(sync(number))

    monkeypatch.setattr(os, "fsync", full)
    other = build(SMALL_MODEL, seed=4)
    other.measured = FOUND
    with pytest.raises(ResourceError, match=r"cannot be written: .*No space left"):
        save_pretrained(other, saved_model)
    assert contents(saved_model) == before


@pytest.mark.parametrize("steps", range(6))
def test_a_save_that_is_broken_off_leaves_no_mixture(saved_model, monkeypatch, steps):
    first, other = build(SMALL_MODEL, seed=3), build(SMALL_MODEL, seed=4)
    first.measured, other.measured = {"familiar": {"score": 1.0}}, FOUND
    save_pretrained(first, saved_model)
    done = []

    def counted(real):
        def call(*arguments, **options):
            if len(done) >= steps:
                raise KeyboardInterrupt
            done.append(real(*arguments, **options))

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", counted(os.replace))
        unlink = counted(os.unlink)
        patch.setattr(Path, "unlink", lambda path, **_: path.name.endswith(".tmp") or unlink(path))
        with suppress(KeyboardInterrupt):
            save_pretrained(other, saved_model)
    if 0 < steps < 4:
        with pytest.raises(ModelError, match="no model here"):
            from_pretrained(saved_model)
    else:
        found, whole = from_pretrained(saved_model), other if steps >= 4 else first
        assert weights_hash(found) == weights_hash(whole)
        assert found.measured == whole.measured


def test_a_model_saved_before_is_read_and_gives_what_it_gave_then():
    model = from_pretrained(DATA / "old-model")
    expected = json.loads((DATA / "old-model" / "expected.json").read_text())
    x = torch.tensor(expected["x"])
    with torch.no_grad():
        projected, log_prob = model.project(x), model.log_prob(x).tolist()
        cleared = model.clear(x, 0.1)
        shrunken = model.chart.shrink(cleared, torch.full((3,), 0.1))
    torch.testing.assert_close(projected, torch.tensor(expected["project"]), atol=1e-6, rtol=0)
    torch.testing.assert_close(cleared, torch.tensor(expected["cleared"]), atol=1e-6, rtol=0)
    torch.testing.assert_close(shrunken, torch.tensor(expected["shrink"]), atol=1e-6, rtol=0)
    assert log_prob == pytest.approx(expected["log_prob"], abs=1e-6)
    assert model.measured["familiar"] == {"score": 0.01, "coarse": 0.5}


@pytest.mark.parametrize("draw", [0, 0.0, 8, None])
def test_of_networks_that_drew_whole_images_it_is_said_that_they_are_gone(saved_model, draw):
    before = weights_hash(from_pretrained(saved_model))
    edit_json(saved_model / "config.json", draw=draw)
    if draw == 0:
        assert weights_hash(from_pretrained(saved_model)) == before
    else:
        with pytest.raises(
            ModelError, match=rf"draw whole images \(draw is {draw}\).*: train it again, or use"
        ):
            from_pretrained(saved_model)


@pytest.mark.parametrize("kind", ["autoencoder", "encoder-flow"])
def test_a_separate_encoder_had_eight_channels_where_no_number_was_given(tmp_path, kind):
    model = build(ModelConfig((1, 8, 8), 2, kind=kind, width=2, hidden=4, near=4, density_width=4))
    save_pretrained(model, tmp_path)
    edit_json(tmp_path / "config.json", draw=0)
    assert weights_hash(from_pretrained(tmp_path)) == weights_hash(model)
    assert model.chart.encoder.net.layers[0].out_channels == 8
    edit_json(tmp_path / "config.json", draw=8)
    with pytest.raises(ModelError, match="which are no longer there"):
        from_pretrained(tmp_path)


@pytest.mark.parametrize(("name", "known"), json.loads((DATA / "layouts.json").read_text()).items())
def test_weights_of_every_kind_keep_their_names_and_shapes(name, known):
    small = {"dim": 2, "width": 2, "hidden": 4, "density": "coupling", "density_width": 4, "density_bins": 8}
    settings = {**small, **known["settings"]}
    weights = build(from_json(ModelConfig, settings)).state_dict()
    layout = "\n".join(f"{name} {tuple(w.shape)} {w.dtype}" for name, w in sorted(weights.items()))
    assert hashlib.sha256(layout.encode()).hexdigest()[:16] == known["sha256"]


def test_weights_in_another_precision_are_read(saved_model):
    def double(tensors):
        tensors.update({name: t.double() for name, t in tensors.items() if t.is_floating_point()})

    expected = from_pretrained(saved_model).state_dict()
    edit_tensors(saved_model / "model.safetensors", double)
    found = from_pretrained(saved_model).state_dict()
    assert all(t.dtype == expected[n].dtype and torch.equal(t, expected[n]) for n, t in found.items())
