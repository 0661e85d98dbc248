"""Tensors come back as they were saved, or an error says what is wrong with them."""

import io
import os
import pickle
import pickletools
import struct
import zipfile
from collections import OrderedDict

import pytest
import torch
from hostile import Call, nothing_executed

from mfimage import limits
from mfimage.datasets.pickles import Unpickler
from mfimage.datasets.torch_pickles import (
    TENSORS,
    TensorPart,
    is_torchscript,
    load_storage,
    make_tensors,
    named_parts,
    read_state,
    read_torchscript,
)
from mfimage.limits import Allowance, Refused


def read(content):
    allowance = Allowance()
    calls = {**TENSORS, ("torch.storage", "_load_from_bytes"): lambda data: load_storage(data, allowance)}
    return Unpickler(io.BytesIO(content), calls, allowance).load()


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool]
)
def test_tensors_come_back_with_their_layout(dtype):
    base = (torch.arange(48) % 7).to(dtype).view(2, 4, 3, 2)
    kinds = [
        base,
        base[1:, :, 1],
        base.mT,
        base.to(memory_format=torch.channels_last),
        base[:0],
        base[0, 0, 0, 0],
    ]
    for wanted, given in zip(kinds, read(pickle.dumps(kinds)), strict=True):
        assert isinstance(given, TensorPart)
        assert torch.equal(given.tensor(), wanted)
        assert given.tensor().dtype == dtype


def storage(change=lambda content: content):
    """The bytes of a storage of two floats, changed."""
    found = [a for _, a, _ in pickletools.genops(pickle.dumps(torch.zeros(2))) if isinstance(a, bytes)]
    return Call(torch.storage._load_from_bytes, change(found[0]))


def tensor(content, offset=0, size=(2,), stride=(1,)):
    return Call(torch._utils._rebuild_tensor_v2, content, offset, size, stride, False, OrderedDict())


@pytest.mark.parametrize(
    "shape",
    [
        {"offset": 1},
        {"offset": -1},
        {"offset": 10**30},
        {"size": (3,)},
        {"size": (10**12,), "stride": (0,)},
        {"size": (2, 2), "stride": (0, 0)},
        {"size": (-2,)},
        {"size": (2,), "stride": (2,)},
        {"size": (2,), "stride": (-1,)},
        {"size": (2, 1)},
        {"size": (1,) * 99, "stride": (0,) * 99},
        {"size": ("2",)},
        {"size": (2.0,)},
        {"size": 2},
        {"offset": None},
    ],
)
def test_a_tensor_that_claims_more_than_its_numbers_is_refused(shape):
    assert torch.equal(read(pickle.dumps(tensor(storage()))).tensor(), torch.zeros(2))
    with pytest.raises(Refused, match="a tensor in it"):
        read(pickle.dumps(tensor(storage(), **shape)))


@pytest.mark.parametrize(
    "change",
    [
        lambda b: b[:-1],
        lambda b: b + b"x",
        lambda b: b[:-16] + (3).to_bytes(8, "little") + b[-8:],
        lambda b: b[:-16] + (2**62).to_bytes(8, "little") + b[-8:],
        lambda b: b.replace(b"FloatStorage", b"EmptyStorage"),
        lambda b: b.replace(b"FloatStorage", b"QInt8Storage"),
        lambda b: b.replace(b"ctorch\nFloatStorage", b"cposix\nFloatStorage"),
        lambda b: b.replace(b"FloatStorage", b"DoubleStorage"),
        lambda b: b.replace(b"little_endianq\x02\x88", b"little_endianq\x02\x89"),
        lambda b: b.replace(b"l\xfc\x9c", b"l\xfc\x9d"),
        lambda b: b.replace(b"X\x07\x00\x00\x00storage", b"X\x07\x00\x00\x00network"),
        lambda b: b.replace(b"Ntq", b"K\x01tq"),
        lambda b: b.replace(b"K\x02Nt", b"NNt"),
        lambda b: b.replace(b"Q.\x80", b"R.\x80"),
        lambda b: b"",
        lambda b: "text",
        lambda b: pickle.dumps(Call(os.system, "true")),
    ],
)
def test_a_storage_that_is_not_as_pytorch_writes_it_is_an_error(change):
    content = pickle.dumps(tensor(storage(change)))
    assert content != pickle.dumps(tensor(storage()))
    with (
        nothing_executed(),
        pytest.raises((Refused, ValueError, LookupError, TypeError, EOFError, struct.error)),
    ):
        read(content)


def test_storages_spend_of_the_same_budget(monkeypatch):
    monkeypatch.setattr(limits, "INSTRUCTIONS", 1000)
    nested = storage(lambda b: b[:-16].replace(b"\x80\x02M", b"\x80\x02" + b"N" * 1000 + b"M", 1) + b[-16:])
    with pytest.raises(Refused, match="more instructions"):
        read(pickle.dumps(nested))


class Numbers:
    def __init__(self, count):
        self.count = count


def archive(path, pickled, count=2):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("net/data.pkl", pickled)
        file.writestr("net/code/__torch__.py", "")
        file.writestr("net/data/0", bytes(4 * count))
    return path


def test_torchscript_code_is_not_run(tmp_path):
    path = archive(
        tmp_path / "w.pt", pickle.dumps(Call(os.system, f"touch {tmp_path / 'canary'}"), protocol=2)
    )
    assert is_torchscript(path)
    with pytest.raises(Refused, match="system"):
        read_torchscript(path)
    assert not (tmp_path / "canary").exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_torchscript_tensors_equal_the_state_dict(tmp_path):
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, (1, 3), padding=(0, 1)), torch.nn.Sequential(torch.nn.PReLU(), torch.nn.ReLU())
    )
    path = tmp_path / "w.pt"
    torch.jit.save(torch.jit.script(module), path)
    found = read_torchscript(path)
    assert is_torchscript(path)
    assert set(found) == set(module.state_dict())
    assert all(torch.equal(found[name], value) for name, value in module.state_dict().items())


def test_a_state_dict_is_not_torchscript(tmp_path):
    torch.save({"a": torch.zeros(2)}, tmp_path / "w.pt")
    assert not is_torchscript(tmp_path / "w.pt")
    assert not is_torchscript(tmp_path / "none")


STATE = {
    "a.weight": torch.arange(24.0).view(2, 3, 4),
    "a.half": torch.arange(4.0).half().view(2, 2).T,
    "count": torch.tensor(7),
}


@pytest.mark.parametrize("zipped", [True, False])
def test_a_dictionary_of_tensors_comes_back(tmp_path, zipped):
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    shared = torch.rand(6)
    for state in (STATE, module.state_dict(), {"a": shared[:3], "b": shared[3:]}):
        torch.save(state, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
        found = read_state(tmp_path / "w.pth")
        assert list(found) == list(state)
        assert all(torch.equal(found[name], value) for name, value in state.items())


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_is_no_dictionary_of_tensors_is_an_error(tmp_path, zipped):
    path = tmp_path / "w.pth"
    for wrong in ([torch.zeros(2)], Call(os.system, f"touch {tmp_path / 'canary'}"), 3):
        torch.save(wrong, path, _use_new_zipfile_serialization=zipped)
        with nothing_executed(), pytest.raises(Refused):
            read_state(path)
    torch.save(STATE, path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    for end in range(0, len(content) - 1, 97):
        path.write_bytes(content[:end])
        with pytest.raises(
            (Refused, ValueError, LookupError, TypeError, EOFError, struct.error, StopIteration)
        ):
            read_state(path)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("count", [1, 3, -2, "2"])
def test_torchscript_numbers_of_another_count_are_refused(tmp_path, count):
    content = io.BytesIO()

    class Archive(pickle.Pickler):
        def persistent_id(self, value):
            return (
                ("storage", torch.FloatStorage, "0", "cpu", value.count)
                if isinstance(value, Numbers)
                else None
            )

    Archive(content, 2).dump({"w": Numbers(count)})
    with pytest.raises((Refused, TypeError)):
        read_torchscript(archive(tmp_path / "w.pt", content.getvalue()))


def test_torchscript_of_a_module_within_itself_is_refused(tmp_path):
    itself = b"\x80\x02c__torch__\nM\n)\x81q\x00}X\x01\x00\x00\x00mh\x00sb."
    with pytest.raises(Refused, match="not nested"):
        read_torchscript(archive(tmp_path / "w.pt", itself))


def test_what_an_archive_unpacks_to_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "BYTES", 10_000)
    path = tmp_path / "w.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("net/data.pkl", b"\x80\x02" + bytes(20_000))
    with pytest.raises(Refused, match="more bytes than such a file may become"):
        read_torchscript(path)


@pytest.mark.parametrize("shape", [{"size": (2,), "stride": (900,)}, {"size": (800,)}])
def test_many_names_may_not_copy_one_storage(shape):
    numbers = torch.zeros(1000)
    (part,) = read(pickle.dumps([numbers]))
    parts = {
        str(i): TensorPart(part.storage, 0, shape["size"], shape.get("stride", (1,))) for i in range(60_000)
    }
    with pytest.raises(Refused, match="share their numbers"):
        make_tensors(parts, 5000)
    assert set(make_tensors({"a": parts["0"]}, 5000)) == {"a"}


def test_modules_may_not_share_what_they_hold_without_end():
    held = {f"{i}": None for i in range(100_000)}
    with pytest.raises(Refused, match="fills its lists"):
        named_parts((f"m{i}", held) for i in range(4000))


@pytest.mark.parametrize("count", [1, 9])
def test_torchscript_tensors_may_not_share_their_numbers_without_end(tmp_path, count):
    numbers = (
        b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuM\xe8\x03tQ"
    )
    one = b"ctorch._utils\n_rebuild_tensor_v2\n(" + numbers + b"K\x00M\xe8\x03\x85K\x01\x85\x89NtR"
    content = b"".join(b"X\x01\x00\x00\x00%c" % (97 + i) + one + b"s" for i in range(count))
    path = archive(tmp_path / "w.pt", b"\x80\x02c__torch__\nM\n)\x81}" + content + b"b.", 1000)
    if count == 1:
        assert torch.equal(read_torchscript(path)["a"], torch.zeros(1000))
        return
    with pytest.raises(Refused, match="share their numbers"):
        read_torchscript(path)
