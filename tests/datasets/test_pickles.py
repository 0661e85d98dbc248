"""Whatever a pickle asks for, nothing is executed, and what it costs is bounded."""

import contextlib
import io
import pickle
import time
import tracemalloc
from collections import OrderedDict

import numpy as np
import pytest
from hostile import GREEDY, named, nothing_executed, text

from mfimage import limits
from mfimage.datasets.pickles import ARRAYS, Name, Stub, Unpickler
from mfimage.datasets.torch_pickles import TENSORS
from mfimage.limits import Refused


def read(content):
    return Unpickler(io.BytesIO(content), {**ARRAYS, **TENSORS}).load()


class Trigger:
    """Its state is set by a method, which a reader must not call."""

    def __init__(self):
        self.armed = True

    def __setstate__(self, state):
        raise AssertionError("__setstate__ was called")


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
def test_what_asks_for_a_call_is_refused(content):
    with nothing_executed(), pytest.raises(Refused):
        read(content)


def test_names_and_objects_stay_inert():
    with nothing_executed():
        assert read(b"\x80\x04" + named("antigravity", "x") + b".") == Name("antigravity", "x")
    content = pickle.dumps(Trigger())
    with nothing_executed():
        stub = read(content)
    assert isinstance(stub, Stub)
    assert stub.of.endswith("Trigger")
    assert stub.state == {"armed": True}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_values_come_back(protocol):
    plain = {
        "a": [1, -2, 2**31, 2**70, 1.5, None, True],
        "b": ("x", ("y", ())),
        3: [{"z": "w"}],
        "c": OrderedDict(k="ü"),
    }
    if protocol > 2:
        plain["d"] = b"\x00\xff" * 200
    if protocol > 3:
        plain["e"] = {"z", "w"}
    assert read(pickle.dumps(plain, protocol)) == plain


def test_text_of_python_2_is_bytes():
    assert read(b"\x80\x02U\x02\xe4bT\x01\x00\x00\x00c\x86.") == (b"\xe4b", b"c")


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_an_array_is_a_stub_with_its_bytes(protocol):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    content = pickle.dumps(array, protocol)
    if protocol == 2:  # where Python 3 writes bytes by a call
        with pytest.raises(Refused, match=r"_codecs\.encode"):
            read(content)
        return
    _, shape, dtype, in_columns, data = read(content).state
    assert (shape, dtype.of, dtype.state[1], in_columns) == ((2, 3), "numpy.dtype f4", "<", False)
    assert data == array.tobytes()


@pytest.mark.parametrize("content", GREEDY.values(), ids=GREEDY)
def test_a_claimed_length_costs_no_memory(content):
    tracemalloc.start()
    try:
        with contextlib.suppress(Refused, ValueError, EOFError):
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
def test_depth_is_no_matter(content):
    with contextlib.suppress(Refused, IndexError):
        read(b"\x80\x04" + content + b".")


def test_a_nest_of_the_same_tuples_is_refused():
    for levels in (60, 200):
        doubled = b"N" + b"".join(b"q%ch%c\x86" % (k, k) for k in range(levels))  # 2^60 leaves
        began = time.process_time()
        with pytest.raises(Refused, match="nests tuples in a way that no network does"):
            read(b"\x80\x04" + doubled + b".")
        assert time.process_time() - began < 2
    nested = b"N" + b"\x85" * 2000
    with pytest.raises(Refused, match="nests tuples"):
        read(b"\x80\x04" + nested + b".")


def test_a_tuple_is_no_key():
    for use in (b"}NN\x86K\x01s.", b"\x8f(NN\x86\x90."):
        with pytest.raises(Refused, match="a key of it is a tuple"):
            read(b"\x80\x04" + use)


def test_elements_are_counted_not_instructions():
    times = b"](" + b"K\x01" * 100 + b"e\x94"  # a list of 100 numbers, in the memo
    calls = named("torch.jit._pickle", "build_intlist") + b"\x94"
    again = b"h\x01h\x00\x85R" * 30_000
    with pytest.raises(Refused, match="fills its lists, sets and dictionaries with more"):
        read(b"\x80\x04" + times + calls + again + b"N.")
    assert read(b"\x80\x04" + times + calls + again[: 3000 * 6] + b"N.") is None


def test_the_number_of_instructions_is_bounded(monkeypatch):
    monkeypatch.setattr(limits, "INSTRUCTIONS", 1000)
    assert isinstance(read(b"\x80\x04" + b"]" * 990 + b"."), list)
    with pytest.raises(Refused, match="more instructions"):
        read(b"\x80\x04" + b"]" * 1000 + b".")
