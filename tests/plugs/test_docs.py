"""The examples of docs/plugs.md, each where its libraries are installed."""

import doctest
import os
import re
import warnings
from pathlib import Path

import pytest
import torch

from mfimage._torchvision import import_torchvision
from mfimage.errors import UnfamiliarWarning

PAGE = Path(__file__).parents[2] / "docs" / "plugs.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
LIBRARIES = ("pyod", "deepinv", "torchmetrics")  # what the tests themselves do not need


def run(block, names):
    test = doctest.DocTestParser().get_doctest(block, names, "plugs.md", str(PAGE), 0)
    runner = doctest.DocTestRunner()
    runner.run(test, clear_globs=False)
    names.update(test.globs)
    assert runner.tries > 0
    assert not runner.failures


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """What the first example makes, and those after it add to; they run in a folder of their own."""
    torch.set_num_threads(1)
    before, known = Path.cwd(), {}
    os.chdir(tmp_path_factory.mktemp("plugs"))
    run(BLOCKS[0], known)
    yield known
    os.chdir(before)


@pytest.mark.parametrize("block", BLOCKS[1:])
def test_an_example(block, names, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    import_torchvision()
    for library in LIBRARIES:
        if re.search(rf"^>>> (?:from|import) {library}\b", block, re.MULTILINE):
            pytest.importorskip(library)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnfamiliarWarning)  # the model has seen nearly nothing
        run(block, {**names, "__name__": "__main__"})
