import pytest
import torch
from safetensors.torch import load, load_file, save_file

from mfimage.errors import ModelError
from mfimage.tensors import read_metadata, read_tensors, save_tensors


def test_tensors_of_every_kind_come_back_and_the_library_reads_them_too(tmp_path):
    kinds = (
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.int16,
    )
    tensors = {str(kind): torch.arange(5).to(kind) for kind in (*kinds, torch.int8, torch.uint8, torch.bool)}
    tensors |= {
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "turned": torch.rand(3, 4).T,
        "é": torch.ones(1),
    }
    save_tensors(tensors, tmp_path / "a", {"about": "this"})
    for again in (
        read_tensors(tmp_path / "a"),
        load_file(tmp_path / "a"),
        load((tmp_path / "a").read_bytes()),
    ):
        assert again.keys() == tensors.keys()
        assert all(torch.equal(again[name], tensor) for name, tensor in tensors.items())
        assert all(again[name].dtype == tensor.dtype for name, tensor in tensors.items())
    assert read_metadata(tmp_path / "a").keys() == {"about", "crc32"}
    save_tensors(dict(reversed(tensors.items())), tmp_path / "b", {"about": "this"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("change", ["name", "shape", "type", "value"])
def test_a_file_that_does_not_hold_what_was_written_is_damaged(tmp_path, change):
    save_tensors({"a": torch.ones(2, 3)}, tmp_path / "a", {})
    header, tensor = read_metadata(tmp_path / "a"), torch.ones(2, 3)
    wrong = {"name": {"b": tensor}, "shape": {"a": tensor.T.contiguous()}}
    wrong |= {"type": {"a": tensor.view(torch.int32)}, "value": {"a": tensor * 2}}
    save_file({"a": tensor}, tmp_path / "a", header)
    assert read_tensors(tmp_path / "a").keys() == {"a"}
    save_file(wrong[change], tmp_path / "a", header)
    with pytest.raises(ModelError, match="a: damaged: it does not hold what was written"):
        read_tensors(tmp_path / "a")
    save_file(wrong[change], tmp_path / "a")  # which nobody vouches for
    assert read_tensors(tmp_path / "a").keys() == wrong[change].keys()
