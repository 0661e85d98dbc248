"""Hostile pickles: nothing of them is executed, and only ModelError comes out."""

import builtins
import codecs
import contextlib
import os
import pickle
import pickletools
import random
import struct
import subprocess
import sys
import time
import tracemalloc
from collections import OrderedDict
from contextlib import contextmanager
from unittest import mock

import networks
import numpy as np
import pytest
import torch

from mfimage.datasets import pickles
from mfimage.datasets.pickles import Name, Stub
from mfimage.datasets.stylegan import import_network
from mfimage.datasets.stylegan.importing import read_network_pickle
from mfimage.datasets.torch_pickles import TensorPart
from mfimage.errors import ModelError


@pytest.fixture
def read(tmp_path):
    def read(content):
        path = tmp_path / "hostile"
        path.write_bytes(content)
        return read_network_pickle(path)

    return read


@contextmanager
def nothing_executed():
    """Fail if a function that a pickle could do harm with is reached, or a module is imported."""
    codecs.lookup("raw-unicode-escape")  # of text that only old pickles have; Python loads it at first use
    modules = set(sys.modules)
    targets = ["os.system", "os.abort", "builtins.eval", "builtins.exec", "subprocess.Popen", "pickle.loads"]
    patches = [mock.patch(name) for name in [*targets, "torch.load", "torch.storage._load_from_bytes"]]
    traps = [patch.start() for patch in patches]
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()
    assert not any(trap.called for trap in traps)
    assert set(sys.modules) == modules


class Call:
    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.reduced


class Trigger:
    """Its state is set by a method, which a reader must not call."""

    def __init__(self):
        self.armed = True

    def __setstate__(self, state):
        raise AssertionError("__setstate__ was called")


def text(value):
    return b"\x8c" + bytes([len(value)]) + value.encode()


def named(module, name):
    return text(module) + text(name) + b"\x93"


ASKING = {
    "a call by name": b"\x80\x04" + named("os", "system") + text("true") + b"\x85R.",
    "a call by a line of text": b"\x80\x02cposix\nsystem\n" + text("true") + b"\x85R.",
    "a call of eval": b"\x80\x04" + named("builtins", "eval") + text("1") + b"\x85R.",
    "a call without arguments": b"\x80\x04" + named("os", "abort") + b")R.",
    "a new object with arguments": b"\x80\x04" + named("subprocess", "Popen") + text("true") + b"\x85\x81.",
    "a new object with keywords": b"\x80\x04" + named("subprocess", "Popen") + b")}\x92.",
    "INST": b"(S'true'\nios\nsystem\n.",
    "OBJ": b"\x80\x02(" + named("os", "system") + text("true") + b"o.",
    "an extension": b"\x80\x02\x82\x01.",
    "a longer extension": b"\x80\x02\x83\x01\x00.",
    "the longest extension": b"\x80\x02\x84\x01\x00\x00\x00.",
    "a persistent id": b"\x80\x04" + text("os.system") + b"Q.",
    "a persistent id of protocol 0": b"Pos.system\n.",
    "a call of what a call gave": b"\x80\x04" + named("builtins", "getattr") + named("a", "b") + b"\x85R)R.",
    "a call of a stub": b"\x80\x04" + named("os", "system") + b")\x81)R.",
    "a call of a name inside a name": b"\x80\x04" + named("os", "path.os.system") + text("true") + b"\x85R.",
    "a name that is no string": b"\x80\x04K\x01K\x02\x93.",
    "arguments that are no tuple": b"\x80\x04" + named("collections", "OrderedDict") + b"]R.",
    "the state of a list": b"\x80\x04]}" + text("append") + b"K\x01sb.",
    "the state of a name": b"\x80\x04" + named("os", "system") + b"}b.",
    "items of a stub": b"\x80\x04" + named("a", "b") + b")\x81K\x01K\x02s.",
    "items of a name": b"\x80\x04" + named("os", "environ") + text("PATH") + text("") + b"s.",
    "appending to a stub": b"\x80\x04" + named("a", "b") + b")\x81K\x01a.",
    "adding to a list": b"\x80\x04](K\x01\x90.",
    "an outer buffer": b"\x80\x05\x97.",
    "a dict of a thing that hashes itself": b"\x80\x04}" + named("a", "b") + b")\x81K\x01s.",
    "a tuple as a key": b"\x80\x04}K\x01\x85K\x01s.",
    "a huge number as a key": b"\x80\x04}\x8a\x09" + b"\xff" * 8 + b"\x00K\x01s.",
}  # fmt: skip


@pytest.mark.parametrize("content", ASKING.values(), ids=ASKING)
def test_what_asks_for_a_call_is_refused(content, read):
    with (
        nothing_executed(),
        pytest.raises(ModelError, match="nothing in it was executed"),
    ):
        read(content)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize(
    "harm",
    [
        Call(os.system, "true"),
        Call(builtins.eval, "1"),
        Call(builtins.exec, "1"),
        Call(subprocess.check_output, "true"),
        Call(pickle.loads, b"N."),
        Call(OrderedDict, state={"__class__": 1, "keys": Call(os.system, "true")}),
        OrderedDict(a=Call(os.system, "true")),
        [Call(getattr, "x", "lower")],
        np.array([Call(os.system, "true")], dtype=object),
        networks.Part("Generator", inner=Call(os.system, "true")),
        Call(torch.load, "some.pt"),
    ],
)
def test_hostile_objects_are_refused_beside_a_good_network(harm, protocol, tmp_path):
    path = tmp_path / "hostile"
    path.write_bytes(networks.dumps(networks.snapshot() | {"D": harm}, protocol))
    with nothing_executed(), pytest.raises(ModelError, match="hostile: refused"):
        import_network(path)


def test_no_trace_is_left_by_what_real_unpickling_would_execute(tmp_path):
    trace, path = tmp_path / "trace", tmp_path / "hostile"
    path.write_bytes(networks.dumps({"G_ema": Call(os.system, f"touch {trace}")}))
    with pytest.raises(ModelError, match="asks for a call of"):
        import_network(path)
    assert not trace.exists()
    pickle.loads(path.read_bytes())
    assert trace.exists()  # so that the test could have failed


def test_names_and_objects_stay_inert(read):
    with nothing_executed():
        assert read(b"\x80\x04" + named("antigravity", "x") + b".") == Name("antigravity", "x")
    content = pickle.dumps(Trigger())
    with nothing_executed():
        stub = read(content)
    assert isinstance(stub, Stub)
    assert stub.of.endswith("Trigger")
    assert stub.state == {"armed": True}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_values_come_back(protocol, read):
    plain = {
        "a": [1, -2, 2**31, 2**70, 1.5, None, True],
        "b": ("x", ("y", ())),
        3: {"z", "w"},
        "c": OrderedDict(k="ü"),
    }
    assert read(networks.dumps(plain, protocol)) == plain
    if protocol > 2:
        numbers = {"n": np.float32(0.1), "i": np.int64(-5), "d": np.float64(1e300), "b": b"\x00\xff" * 200}
        assert read(networks.dumps(numbers, protocol)) == numbers


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_numpy_numbers_of_every_release_are_read(module, read):
    def number(order, code="f8"):
        dtype = (
            named("numpy", "dtype")
            + text(code)
            + b"K\x00K\x01\x87R(K\x03"
            + text(order)
            + b"NNNJ\xff\xff\xff\xff"
        )
        dtype += b"J\xff\xff\xff\xffK\x00tb"
        return b"\x80\x04" + named(module, "scalar") + dtype + b"C\x08" + struct.pack("<d", 1.5) + b"\x86R."

    assert read(number("<")) == 1.5
    for bad in (number(">"), number("<", "f4"), number("<", "O8"), number("<", "V8")):
        with pytest.raises(ModelError, match="hostile"):
            read(bad)


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool]
)
def test_tensors_come_back_with_their_layout(dtype, read):
    base = (torch.arange(48) % 7).to(dtype).view(2, 4, 3, 2)
    kinds = [
        base,
        base[1:, :, 1],
        base.mT,
        base.to(memory_format=torch.channels_last),
        base[:0],
        base[0, 0, 0, 0],
    ]
    for wanted, given in zip(kinds, read(networks.dumps(kinds)), strict=True):
        assert isinstance(given, TensorPart)
        assert torch.equal(given.tensor(), wanted)
        assert given.tensor().dtype == dtype


def storage(change=lambda content: content):
    """The bytes of a storage of two floats, changed."""
    found = [a for _, a, _ in pickletools.genops(networks.dumps(torch.zeros(2))) if isinstance(a, bytes)]
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
def test_a_tensor_that_claims_more_than_its_numbers_is_refused(shape, read):
    assert torch.equal(read(networks.dumps(tensor(storage()))).tensor(), torch.zeros(2))
    with pytest.raises(ModelError, match="hostile: refused, because a tensor"):
        read(networks.dumps(tensor(storage(), **shape)))


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
def test_a_storage_that_is_not_as_pytorch_writes_it_is_an_error(change, read):
    content = networks.dumps(tensor(storage(change)))
    assert content != networks.dumps(tensor(storage()))
    with nothing_executed(), pytest.raises(ModelError, match=r"hostile: (refused|damaged)"):
        read(content)


GREEDY = {
    "bytes": b"\x80\x04\x8e" + (2**62).to_bytes(8, "little") + b"x.",
    "more bytes than there can be": b"\x80\x04\x8e" + b"\xff" * 8 + b"x.",
    "four gigabytes": b"\x80\x04B" + b"\xff" * 4 + b"x.",
    "text": b"\x80\x04\x8d" + (2**40).to_bytes(8, "little") + b"x.",
    "a frame": b"\x80\x04\x95" + (2**62).to_bytes(8, "little") + b"N.x",
    "an array of bytes": b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b"x.",
    "a far place in the memo": b"\x80\x04Nr\xff\xff\xff\x7f.",
    "a large number": b"\x80\x02\x8b" + b"\xff\xff\xff\x7f" + b"x.",
    "a negative length": b"\x80\x02\x8b" + b"\xff\xff\xff\xff" + b"x.",
}


@pytest.mark.parametrize("content", GREEDY.values(), ids=GREEDY)
def test_a_claimed_length_costs_no_memory(content, read):
    tracemalloc.start()
    try:
        with contextlib.suppress(ModelError):
            assert read(content) is None
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "content",
    [
        b"]" * 50_000 + b"a" * 49_999,
        b"N" + b"\x85" * 50_000,
        b"(" * 50_000 + b"t" * 50_000,
        (named("a", "b") + b")\x81") * 20_000 + b"b" * 19_999,
        b"]" + b"\x94h\x00h\x00\x86" * 20_000,
    ],
    ids=["lists", "tuples", "marks", "states", "itself"],
)
def test_depth_is_no_matter(content, tmp_path):
    path = tmp_path / "hostile"
    path.write_bytes(b"\x80\x04" + content + b".")
    with pytest.raises(ModelError, match=r"no generator in it|damaged|refused"):
        import_network(path)


def test_a_nest_of_the_same_tuples_is_never_walked(read):
    doubled = b"N" + b"".join(b"q%ch%c\x86" % (k, k) for k in range(200))  # 2^200 leaves
    began = time.process_time()
    read(b"\x80\x04" + doubled + b".")
    for use in (b"}\x94h\xc7K\x01s", named("builtins", "set") + b"h\xc7\x85\x85R", b"\x8f(h\xc7\x90"):
        with pytest.raises(ModelError, match="refused"):
            read(b"\x80\x04" + doubled + use + b".")
    assert time.process_time() - began < 2


def test_the_number_of_instructions_is_bounded(read, monkeypatch):
    monkeypatch.setattr(pickles, "_MOST", 1000)
    assert isinstance(read(b"\x80\x04" + b"]" * 990 + b"."), list)
    with pytest.raises(ModelError, match="more instructions"):
        read(b"\x80\x04" + b"]" * 1000 + b".")
    nested = storage(lambda b: b[:-16].replace(b"\x80\x02M", b"\x80\x02" + b"N" * 1000 + b"M", 1) + b[-16:])
    with pytest.raises(ModelError, match="more instructions"):
        read(networks.dumps(nested))


def test_a_pickle_cut_at_any_byte_is_an_error(read):
    content = networks.dumps(
        {"G_ema": networks.Part("G", {"w": torch.zeros(2)}, gain=np.float64(1)), "s": {"x"}}
    )
    assert read(content)["s"] == {"x"}
    for length in range(len(content)):
        with pytest.raises(ModelError, match="hostile"):
            read(content[:length])


@pytest.mark.parametrize("what", ["absent", "folder", "empty", "pipe"])
def test_what_is_no_file_is_an_error(what, tmp_path):
    path = tmp_path / "hostile"
    {"absent": lambda: None, "folder": path.mkdir, "empty": path.touch, "pipe": lambda: os.mkfifo(path)}[
        what
    ]()
    with pytest.raises(ModelError, match="hostile"):
        import_network(path)


def survives(content, path):
    """Import; whatever the bytes are, it ends well or with a ModelError that names the file."""
    path.write_bytes(content)
    message = str(path)
    try:
        import_network(path)
    except ModelError as error:
        message = str(error)
    assert str(path) in message
    return message == str(path)


def test_mutated_networks_give_an_error_or_a_network(tmp_path):
    dice, count = random.Random(0), int(os.environ.get("MFIMAGE_FUZZ", "200"))
    content = networks.dumps(networks.network(widths=(1,), depth=1, z_dim=1, w_dim=1))
    assert survives(content, tmp_path / "hostile")
    began, good = time.process_time(), 0
    with nothing_executed():
        for _ in range(count):
            changed = bytearray(content)
            for _ in range(dice.randint(1, 4)):
                at = dice.randrange(len(changed))
                kind = dice.random()
                if kind < 0.5:
                    changed[at] = dice.randrange(256)
                elif kind < 0.7:
                    del changed[at : at + dice.randint(1, 40)]
                elif kind < 0.9:
                    start = dice.randrange(len(content))
                    changed[at:at] = content[start : start + dice.randint(1, 40)]
                else:
                    changed[at:at] = dice.randbytes(dice.randint(1, 9))
            good += survives(bytes(changed), tmp_path / "hostile")
    assert 0 < good < count
    assert time.process_time() - began < 0.3 * count


def test_random_programs_give_an_error_or_a_network(tmp_path):
    dice = random.Random(1)
    names = [
        b"torch_utils.persistence",
        b"_reconstruct_persistent_obj",
        b"torch._utils",
        b"_rebuild_parameter",
    ]
    names += [b"_rebuild_tensor_v2", b"torch.storage", b"_load_from_bytes", b"collections", b"OrderedDict"]
    names += [b"numpy", b"dtype", b"numpy.core.multiarray", b"scalar", b"builtins", b"set", b"eval", b"os"]
    names += [b"_modules", b"class_name", b"state", b"G_ema", b"copyreg", b"_reconstructor"]
    pieces = [
        code.code.encode("latin-1") for code in pickletools.opcodes if code.arg is None and code.code != "."
    ]
    pieces += [b"\x8c%c" % len(name) + name for name in names] * 2 + [
        b"K\x01",
        b"h\x00",
        b"h\x01",
        b"C\x02ab",
    ] * 4
    pieces += [b"\x93", b"R", b")", b"\x85", b"\x86", b"}", b"s", b"b", b"\x94"] * 8
    with nothing_executed():
        for _ in range(600):
            program = b"".join(dice.choices(pieces, k=dice.randint(1, 40)))
            survives(b"\x80\x04" + program + b".", tmp_path / "hostile")
