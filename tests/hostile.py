"""Files that are damaged, pickles that would do harm if they were executed, and a guard that notices it."""

import json
import sys
from contextlib import contextmanager
from unittest import mock

from safetensors.torch import load_file, save_file


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def garble(path):
    path.write_bytes(b"no tensors here" * 50)


def flip_bit(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def edit_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_tensors(path, change=lambda tensors: None, header=None):
    """Change the dictionary of tensors in a file, which then has this header."""
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, header)


@contextmanager
def nothing_executed():
    """Fail if a function that a pickle could do harm with is reached, or a module is imported."""
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


def text(value):
    return b"\x8c" + bytes([len(value)]) + value.encode()


def named(module, name):
    return text(module) + text(name) + b"\x93"


def damaged(data, dice):
    """Bits flipped, pieces cut out, doubled, moved in from elsewhere, or the end missing."""
    changed = bytearray(data)
    for _ in range(dice.randint(1, 6)):
        at, kind = dice.randrange(max(1, len(changed))), dice.random()
        if kind < 0.45 and changed:
            changed[at] ^= 1 << dice.randrange(8)
        elif kind < 0.6 and changed:
            changed[at] = dice.choice((0, 1, 127, 128, 255))
        elif kind < 0.7:
            del changed[at : at + dice.randint(1, 30)]
        elif kind < 0.8:
            del changed[at:]
        elif kind < 0.9:
            start = dice.randrange(len(data))
            changed[at:at] = data[start : start + dice.randint(1, 60)]
        else:
            changed[at:at] = dice.randbytes(dice.randint(1, 12))
    return bytes(changed)


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
