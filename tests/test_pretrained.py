import hashlib
import json
import os
import pickle
from contextlib import suppress
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file

from mfimage import ManifoldFlow, ModelConfig, build, from_pretrained, save_pretrained
from mfimage.errors import ModelError, ResourceError
from mfimage.pretrained import weights_hash, write_calibration
from mfimage.settings import from_json

DATA = Path(__file__).parent / "data"

CONFIG = ModelConfig((1, 8, 8), 2, width=2, hidden=8, density_steps=1, density_width=8)


@pytest.fixture
def saved(tmp_path):
    return save_pretrained(build(CONFIG, seed=3), tmp_path / "model")


def test_a_model_comes_back_exactly(saved):
    model, again = build(CONFIG, seed=3), from_pretrained(saved)
    assert not again.training
    assert again.shape == model.shape
    assert again.config == model.config
    weights = again.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(model.eval().project(x), again.project(x))
    assert sorted(os.listdir(saved)) == ["config.json", "model.safetensors"]


def test_a_run_directory_stands_for_its_model(saved):
    assert weights_hash(from_pretrained(saved.parent)) == weights_hash(from_pretrained(saved))


def test_seeds_make_weights_and_leave_the_global_state(generator):
    state = torch.get_rng_state()
    assert weights_hash(build(CONFIG, seed=1)) == weights_hash(build(CONFIG, seed=1))
    assert weights_hash(build(CONFIG, seed=1)) != weights_hash(build(CONFIG, seed=2))
    assert torch.equal(torch.get_rng_state(), state)


def test_the_hash_sees_one_weight():
    model = build(CONFIG)
    before = weights_hash(model)
    with torch.no_grad():
        model.chart.subspace.rotation.mean[5] += 1e-6
    assert weights_hash(model) != before


def test_a_model_put_together_by_hand_cannot_be_saved(tmp_path):
    model = build(CONFIG)
    with pytest.raises(ModelError, match="build or train"):
        save_pretrained(ManifoldFlow(model.chart, model.density, model.shape), tmp_path)


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def garble(path):
    path.write_bytes(b"no tensors here" * 50)


def put_pickle(path):
    path.write_bytes(pickle.dumps({"weights": os.getcwd}))


def put_torch_save(path):
    torch.save({"weights": torch.zeros(2)}, path)


def edit_tensors(change):
    def damage(path):
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path)

    return damage


NAME, OFFSET = "chart.subspace.rotation.mean", "chart.multiscale.offset"
INDICES = "density._transform._transforms.2.identity_features"
SCALE = "density._transform._transforms.0.log_scale"
DAMAGE_TO_WEIGHTS = {
    "truncated": (cut, "damaged or not a safetensors file"),
    "garbage": (garble, "damaged or not a safetensors file"),
    "empty": (lambda path: path.write_bytes(b""), "damaged or not a safetensors file"),
    "pickle": (put_pickle, "damaged or not a safetensors file"),
    "torch.save": (put_torch_save, "damaged or not a safetensors file"),
    "missing tensor": (edit_tensors(lambda t: t.pop(NAME)), f"{NAME} is missing"),
    "unknown tensor": (edit_tensors(lambda t: t.update(extra=torch.zeros(1))), "extra is unknown"),
    "wrong shape": (
        edit_tensors(lambda t: t.update({NAME: torch.zeros(3)})),
        rf"{NAME} has shape \(3,\), not \(64,\)",
    ),
    "NaN": (edit_tensors(lambda t: t[NAME].fill_(float("nan"))), f"{NAME} holds non-finite numbers"),
    "integers": (
        edit_tensors(lambda t: t.update({NAME: t[NAME].long()})),
        f"{NAME} is of type int64, not float32",
    ),
    "truth values": (
        edit_tensors(lambda t: t.update({NAME: t[NAME] > 0})),
        f"{NAME} is of type bool, not float32",
    ),
    "complex": (
        edit_tensors(lambda t: t.update({NAME: t[NAME] * 1j})),
        f"{NAME} is of type complex64, not float32",
    ),
    "too large": (
        edit_tensors(lambda t: t.update({NAME: t[NAME].double().fill_(1e300)})),
        f"{NAME} holds non-finite numbers",
    ),
    "other indices": (edit_tensors(lambda t: t[INDICES].fill_(10**6)), f"{INDICES} holds other indices"),
    "overflow": (
        edit_tensors(lambda t: t[OFFSET].fill_(3e38)),
        "gives no finite numbers .*codes of a grey image is not finite",
    ),
    "overflow of h": (
        edit_tensors(lambda t: t[SCALE].fill_(-200)),
        "gives no finite numbers",
    ),
    "many": (edit_tensors(lambda t: t.clear()), "is missing; and [0-9]+ more"),
}


@pytest.mark.parametrize("kind", DAMAGE_TO_WEIGHTS)
def test_damaged_weights_are_named(saved, kind):
    damage, message = DAMAGE_TO_WEIGHTS[kind]
    damage(saved / "model.safetensors")
    with pytest.raises(ModelError, match=message) as caught:
        from_pretrained(saved)
    assert str(saved / "model.safetensors") in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "another-1"}, "format 'another-1' is not 'mfimage-2'"),
        ({"format": None}, "format None is not"),
        ({"colour": 1}, "unknown setting colour"),
        ({"dim": 64}, "dim must lie in 1 … 63"),
        ({"levels": [[1, 1]]}, "levels must be a whole number"),
        ({"levels": 10**6}, "levels must be at most 17"),
        ({"bends": 10**6}, "bends must be at most 64"),
        ({"density_width": 10**30}, "density_width must be at most"),
        ({"epsilon": 10**400}, "epsilon must be a positive number|too large"),
        ({"shape": [1, 10**9, 10**9]}, "shape must be of no more than"),
        ({"density_width": 30_000}, "more numbers than the file of weights holds"),
        ({"near": 60_000, "hidden": 60_000, "bends": 64}, "more numbers than the file of weights holds"),
        ({"shape": None}, "shape must be"),
    ],
)
def test_a_wrong_configuration_is_named(saved, change, message):
    path = saved / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ModelError, match=message) as caught:
        from_pretrained(saved)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[1]", "3", "null"])
def test_a_configuration_that_is_no_json_object_is_named(saved, text):
    (saved / "config.json").write_text(text)
    with pytest.raises(ModelError, match=r"config\.json: not a readable model configuration"):
        from_pretrained(saved)


def test_weights_of_another_architecture_do_not_fit(saved):
    save_pretrained(build(ModelConfig((1, 8, 8), 3, width=2, hidden=8)), saved.parent / "other")
    os.replace(saved.parent / "other" / "model.safetensors", saved / "model.safetensors")
    with pytest.raises(ModelError, match="does not fit the model"):
        from_pretrained(saved)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_missing_file_is_an_error_that_says_what_is_expected(saved, name):
    (saved / name).unlink()
    with pytest.raises(ModelError, match=r"no model here \(model.safetensors and config.json"):
        from_pretrained(saved)


def test_an_unfinished_run_is_told_from_a_folder_without_a_model(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(ModelError, match="has not finished: continue it with mfimage train --resume"):
        from_pretrained(tmp_path)


FOUND = {"familiar": {"score": 0.25, "coarse": 0.5}, "denoising": {"whole": [1.0], "cut": float("inf")}}


def test_what_was_found_out_about_a_model_comes_back_with_it(tmp_path):
    model = build(CONFIG)
    model.measured = FOUND
    save_pretrained(model, tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["calibration.json", "config.json", "model.safetensors"]
    again = from_pretrained(tmp_path)
    assert again.measured == FOUND
    save_pretrained(build(CONFIG, seed=1), tmp_path)  # of which nothing is known
    assert sorted(os.listdir(tmp_path)) == ["config.json", "model.safetensors"]
    save_pretrained(again, tmp_path)
    assert from_pretrained(tmp_path).measured == FOUND


def test_what_stood_in_the_configuration_before_there_was_a_calibration_is_read(saved):
    path = saved / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"measured": FOUND}))
    assert from_pretrained(saved).measured == FOUND
    write_calibration(saved, {"detector": {"alpha": 0.1}})
    assert from_pretrained(saved).measured == FOUND | {"detector": {"alpha": 0.1}}


def test_a_damaged_calibration_says_what_to_do(saved):
    (saved / "calibration.json").write_text("{")
    with pytest.raises(ModelError, match=r"calibration\.json: not a readable calibration .*: delete it"):
        from_pretrained(saved)


def test_hub_ids_are_asked_of_the_hub(saved, monkeypatch):
    asked = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: asked.append(name) or saved)
    assert weights_hash(from_pretrained("someone/clothes")) == weights_hash(from_pretrained(saved))
    assert asked == ["someone/clothes"]


def test_without_network_a_hub_id_is_a_model_error_in_one_line(monkeypatch):
    def offline(name, **_):
        raise ConnectionError("no route to the host\nand a long story")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(ModelError, match=r"someone/clothes: .*the Hub did not give it \(no route") as caught:
        from_pretrained("someone/clothes")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", ["runs/latest", "./model", "a/b/c", "model", "/nowhere/model", "made/up"])
def test_a_mistyped_path_never_reaches_the_network(source, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "made").mkdir()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("asked the Hub"))
    with pytest.raises(ModelError, match="no such directory"):
        from_pretrained(source)


@pytest.mark.parametrize("synced", range(3))
def test_a_full_disk_leaves_the_model_that_was_there(saved, monkeypatch, synced):
    sync, done, before = os.fsync, [], {path: path.read_bytes() for path in saved.iterdir()}

    def full(number):
        if len(done) == synced:
            raise OSError(28, "No space left on device")
        done.append(sync(number))

    monkeypatch.setattr(os, "fsync", full)
    other = build(CONFIG, seed=4)
    other.measured = FOUND
    with pytest.raises(ResourceError, match=r"cannot be written: .*No space left"):
        save_pretrained(other, saved)
    assert {path: path.read_bytes() for path in saved.iterdir()} == before


@pytest.mark.parametrize("steps", range(6))
def test_a_save_that_is_broken_off_leaves_no_mixture(saved, monkeypatch, steps):
    first, other = build(CONFIG, seed=3), build(CONFIG, seed=4)
    first.measured, other.measured = {"familiar": {"score": 1.0}}, FOUND
    save_pretrained(first, saved)
    done = []

    def counted(real):
        def call(*arguments, **options):
            if len(done) >= steps:
                raise KeyboardInterrupt
            done.append(real(*arguments, **options))

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", counted(os.replace))
        patch.setattr(
            Path, "unlink", lambda path, **_: path.name.endswith(".tmp") or counted(os.unlink)(path)
        )
        with suppress(KeyboardInterrupt):
            save_pretrained(other, saved)
    if 0 < steps < 4:
        with pytest.raises(ModelError, match="no model here"):
            from_pretrained(saved)
    else:
        found, whole = from_pretrained(saved), other if steps >= 4 else first
        assert weights_hash(found) == weights_hash(whole)
        assert found.measured == whole.measured


def test_weights_of_which_one_bit_has_changed_are_damaged(saved):
    path = saved / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.safetensors: damaged: it does not hold what was written"):
        from_pretrained(saved)


def test_a_model_of_the_first_format_says_what_to_do(saved):
    path = saved / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": "mfimage-1", "keep": 1.0}))
    with pytest.raises(ModelError, match=r"a model of mfimage ≤ 0\.1\.0: train it again, or use it with"):
        from_pretrained(saved)


def test_a_model_saved_before_is_read_and_gives_what_it_gave_then():
    model = from_pretrained(DATA / "old-model")
    expected = json.loads((DATA / "old-model" / "expected.json").read_text())
    x = torch.tensor(expected["x"])
    with torch.no_grad():
        projected, log_prob = model.project(x), model.log_prob(x).tolist()
        shrunken = model.chart.shrink(x, torch.full((3,), 0.1))
    torch.testing.assert_close(projected, torch.tensor(expected["project"]), atol=1e-6, rtol=0)
    torch.testing.assert_close(shrunken, torch.tensor(expected["shrink"]), atol=1e-6, rtol=0)
    assert log_prob == pytest.approx(expected["log_prob"], abs=1e-6)
    assert model.measured["familiar"] == {"score": 0.01, "coarse": 0.5}


@pytest.mark.parametrize(("name", "known"), json.loads((DATA / "layouts.json").read_text()).items())
def test_weights_of_every_kind_keep_their_names_and_shapes(name, known):
    settings = {"dim": 2, "width": 2, "hidden": 4, "density_width": 4, **known["settings"]}
    weights = build(from_json(ModelConfig, settings)).state_dict()
    layout = "\n".join(f"{name} {tuple(w.shape)} {w.dtype}" for name, w in sorted(weights.items()))
    assert hashlib.sha256(layout.encode()).hexdigest()[:16] == known["sha256"]


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "calibration.json"])
def test_a_pipe_is_no_file_of_a_model(saved, name):
    (saved / name).unlink(missing_ok=True)
    os.mkfifo(saved / name)
    with pytest.raises(ModelError, match=rf"{name}: not a regular file"):
        from_pretrained(saved)


def test_weights_in_another_precision_are_read(saved):
    path = saved / "model.safetensors"
    expected = from_pretrained(saved).state_dict()
    save_file({name: t.double() if t.is_floating_point() else t for name, t in load_file(path).items()}, path)
    found = from_pretrained(saved).state_dict()
    assert all(t.dtype == expected[n].dtype and torch.equal(t, expected[n]) for n, t in found.items())


@pytest.mark.parametrize("text", [b"\xff\xfe{", b"[" * 100_000, b'{"dim": 1' + b"0" * 5000 + b"}", b"\x00"])
def test_whatever_reading_a_configuration_raises_is_an_error_of_that_file(saved, text):
    (saved / "config.json").write_bytes(text)
    with pytest.raises(ModelError, match=r"config\.json: not a"):
        from_pretrained(saved)
