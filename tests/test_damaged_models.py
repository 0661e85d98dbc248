"""Models of which a file is damaged, missing, or says what cannot be."""

import os
import pickle

import pytest
import torch
from hostile import cut, edit_json, edit_tensors, flip_bit, garble

from mfimage import ModelConfig, build, from_pretrained, save_pretrained
from mfimage.errors import ModelError


def of_tensors(change):
    return lambda path: edit_tensors(path, change)


def of(name, change):
    """Put another tensor in the place of one."""
    return of_tensors(lambda tensors: tensors.update({name: change(tensors[name])}))


NAME, OFFSET = "chart.subspace.rotation.mean", "chart.multiscale.offset"
INDICES = "density._transform._transforms.1.autoregressive_net.final_layer.degrees"
MASK = INDICES.replace("degrees", "mask")
SCALE = "density._transform._transforms.0.log_scale"
UNREADABLE = "damaged or not a safetensors file"
DAMAGE_TO_WEIGHTS = {
    "truncated": (cut, UNREADABLE),
    "garbage": (garble, UNREADABLE),
    "empty": (lambda path: path.write_bytes(b""), UNREADABLE),
    "pickle": (lambda path: path.write_bytes(pickle.dumps({"weights": os.getcwd})), UNREADABLE),
    "torch.save": (lambda path: torch.save({"weights": torch.zeros(2)}, path), UNREADABLE),
    "missing tensor": (of_tensors(lambda tensors: tensors.pop(NAME)), f"{NAME} is missing"),
    "unknown tensor": (of_tensors(lambda tensors: tensors.update(extra=torch.zeros(1))), "extra is unknown"),
    "wrong shape": (of(NAME, lambda _: torch.zeros(3)), rf"{NAME} has shape \(3,\), not \(64,\)"),
    "NaN": (of(NAME, lambda t: t.fill_(float("nan"))), f"{NAME} holds non-finite numbers"),
    "integers": (of(NAME, lambda t: t.long()), f"{NAME} is of type int64, not float32"),
    "truth values": (of(NAME, lambda t: t > 0), f"{NAME} is of type bool, not float32"),
    "complex": (of(NAME, lambda t: t * 1j), f"{NAME} is of type complex64, not float32"),
    "too large": (of(NAME, lambda t: t.double().fill_(1e300)), f"{NAME} holds non-finite numbers"),
    "other indices": (of(INDICES, lambda t: t.fill_(10**6)), f"{INDICES} holds other indices"),
    "another mask": (of(MASK, torch.logical_not), f"{MASK} holds other indices"),
    "overflow": (
        of(OFFSET, lambda t: t.fill_(3e38)),
        "gives no finite numbers .*codes of a grey image is not finite",
    ),
    "overflow of h": (of(SCALE, lambda t: t.fill_(-200)), "gives no finite numbers"),
    "many": (of_tensors(lambda tensors: tensors.clear()), "is missing; and [0-9]+ more"),
    "one bit": (lambda path: flip_bit(path, -5), r"damaged: it does not hold what was written"),
}


@pytest.mark.parametrize("kind", DAMAGE_TO_WEIGHTS)
def test_damaged_weights_are_named(saved_model, kind):
    damage, message = DAMAGE_TO_WEIGHTS[kind]
    damage(saved_model / "model.safetensors")
    with pytest.raises(ModelError, match=message) as caught:
        from_pretrained(saved_model)
    assert str(saved_model / "model.safetensors") in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "another-1"}, "format 'another-1' is not 'mfimage-4'"),
        ({"format": None}, "format None is not"),
        (
            {"format": "mfimage-1", "keep": 1.0},
            r"a model of mfimage ≤ 0\.1\.0: train it again, or use it with",
        ),
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
def test_a_wrong_configuration_is_named(saved_model, change, message):
    path = saved_model / "config.json"
    edit_json(path, **change)
    with pytest.raises(ModelError, match=message) as caught:
        from_pretrained(saved_model)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[1]", b"3", b"null", b"\xff\xfe{", b"[" * 10**5, b'{"dim": %s}' % (b"1" * 5000), b"\x00"],
)  # fmt: skip
def test_a_configuration_that_is_no_json_object_is_named(saved_model, text):
    (saved_model / "config.json").write_bytes(text)
    with pytest.raises(ModelError, match=r"config\.json: not a readable model configuration"):
        from_pretrained(saved_model)


def test_weights_of_another_architecture_do_not_fit(saved_model):
    save_pretrained(build(ModelConfig((1, 8, 8), 3, width=2, hidden=8)), saved_model.parent / "other")
    os.replace(saved_model.parent / "other" / "model.safetensors", saved_model / "model.safetensors")
    with pytest.raises(ModelError, match="does not fit the model"):
        from_pretrained(saved_model)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_missing_file_is_an_error_that_says_what_is_expected(saved_model, name):
    (saved_model / name).unlink()
    with pytest.raises(ModelError, match=r"no model here \(model.safetensors and config.json"):
        from_pretrained(saved_model)


def test_a_damaged_calibration_says_what_to_do(saved_model):
    (saved_model / "calibration.json").write_text("{")
    with pytest.raises(ModelError, match=r"calibration\.json: not a readable calibration .*: delete it"):
        from_pretrained(saved_model)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "calibration.json"])
def test_a_pipe_is_no_file_of_a_model(saved_model, name):
    (saved_model / name).unlink(missing_ok=True)
    os.mkfifo(saved_model / name)
    with pytest.raises(ModelError, match=rf"{name}: not a regular file"):
        from_pretrained(saved_model)
