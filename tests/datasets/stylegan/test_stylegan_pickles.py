"""Hostile network pickles: nothing of them is executed, and only ModelError comes out."""

import builtins
import contextlib
import os
import pickle
import pickletools
import random
import struct
import subprocess
import time
import tracemalloc
from collections import OrderedDict

import networks
import numpy as np
import pytest
import torch
from hostile import GREEDY, Call, damaged, named, nothing_executed, text

from mfimage.datasets.stylegan import import_network
from mfimage.datasets.stylegan.importing import read_network_pickle
from mfimage.errors import ModelError


@pytest.fixture
def read(tmp_path):
    def read(content):
        path = tmp_path / "hostile"
        path.write_bytes(content)
        return read_network_pickle(path)

    return read


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


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_numbers_of_numpy_and_sets_come_back(protocol, read):
    plain = {"n": np.float32(0.1), "i": np.int64(-5), "d": np.float64(1e300), "s": {"z", "w"}}
    assert read(networks.dumps(plain, protocol)) == plain


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_numpy_numbers_of_every_release_are_read(module, read):
    def number(order, code="f8"):
        state = b"(K\x03" + text(order) + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        dtype = named("numpy", "dtype") + text(code) + b"K\x00K\x01\x87R" + state
        return b"\x80\x04" + named(module, "scalar") + dtype + b"C\x08" + struct.pack("<d", 1.5) + b"\x86R."

    assert read(number("<")) == 1.5
    for bad in (number(">"), number("<", "f4"), number("<", "O8"), number("<", "V8")):
        with pytest.raises(ModelError, match="hostile"):
            read(bad)


def test_a_set_hashes_no_tuples(read):
    with pytest.raises(ModelError, match="a key of it is a tuple"):
        read(b"\x80\x04" + named("builtins", "set") + b"N\x85\x85\x85R.")


@pytest.mark.parametrize("content", GREEDY.values(), ids=GREEDY)
def test_a_claimed_length_of_a_file_costs_no_memory(content, read):
    tracemalloc.start()
    try:
        with contextlib.suppress(ModelError):
            assert read(content) is None
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()


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
    make = {
        "absent": lambda: None,
        "folder": path.mkdir,
        "empty": path.touch,
        "pipe": lambda: os.mkfifo(path),
    }
    make[what]()
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
            good += survives(damaged(content, dice), tmp_path / "hostile")
    assert 0 < good < count
    assert time.process_time() - began < 0.3 * count


def test_random_programs_give_an_error_or_a_network(tmp_path):
    dice = random.Random(1)
    names = (
        b"torch_utils.persistence _reconstruct_persistent_obj torch._utils _rebuild_parameter"
        b" _rebuild_tensor_v2 torch.storage _load_from_bytes collections OrderedDict numpy dtype scalar"
        b" numpy.core.multiarray builtins set eval os _modules class_name state G_ema copyreg _reconstructor"
    ).split()
    plain = [code.code for code in pickletools.opcodes if code.arg is None and code.code != "."]
    pieces = [code.encode("latin-1") for code in plain] + [b"\x8c%c" % len(name) + name for name in names] * 2
    pieces += [b"K\x01", b"h\x00", b"h\x01", b"C\x02ab"] * 4
    pieces += [b"\x93", b"R", b")", b"\x85", b"\x86", b"}", b"s", b"b", b"\x94"] * 8
    with nothing_executed():
        for _ in range(600):
            program = b"".join(dice.choices(pieces, k=dice.randint(1, 40)))
            survives(b"\x80\x04" + program + b".", tmp_path / "hostile")
