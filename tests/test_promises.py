"""Every promise names tests that exist, and every kind of bad input has its test."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "promises.md").read_text(encoding="utf-8")
NAMED = re.compile(r"`([a-z_/]+\.py)(?:::(test_\w+))?`")


def names_in(file):
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    return [name for name in names if name.startswith("test_")]


def test_the_tests_that_hold_the_promises_exist():
    named = NAMED.findall(PAGE)
    assert [(file, test) for file, test in named if test and test not in names_in(file)] == []
    assert all((TESTS / file).is_file() for file, _ in named)
    assert len(named) > 10


def test_every_promise_names_a_test():
    promises = re.findall(r"^- .*(?:\n  .*)*", PAGE, re.MULTILINE)
    assert [promise for promise in promises if not NAMED.search(promise)] == []


def test_every_kind_of_bad_input_has_its_test():
    _, *kinds = re.findall(r"^\| (.*?) \|", PAGE, re.MULTILINE)
    expected = ["test_" + re.sub(r"\W+", "_", kind.lower()).strip("_") for kind in kinds]
    assert expected == [*names_in("datasets/test_bad_input.py"), *names_in("datasets/test_bad_sets.py")]
