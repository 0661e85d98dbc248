"""Every promise names tests that exist."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "promises.md"
NAMED = re.compile(r"`([a-z_/]+\.py)(?:::(test_\w+))?`")


def names_in(file):
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_the_tests_that_hold_the_promises_exist():
    named = NAMED.findall(PAGE.read_text(encoding="utf-8"))
    assert [(file, test) for file, test in named if test and test not in names_in(file)] == []
    assert all((TESTS / file).is_file() for file, _ in named if not file.startswith("tests/"))
    assert len(named) > 10


def test_every_promise_names_a_test():
    promises = re.findall(r"^- .*(?:\n  .*)*", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert [promise for promise in promises if not NAMED.search(promise)] == []
