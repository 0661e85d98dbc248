import threading
import time

import pytest
import torch

from mfimage.datasets.prefetch import Ahead, ahead, workers
from mfimage.errors import DataError


def readers():
    return [t for t in threading.enumerate() if t.name.startswith("mfimage-read")]


def test_the_order_stays_whoever_is_first():
    def slow(i):
        time.sleep(0.002 * (i % 3))
        return i

    assert list(ahead(slow, range(30), threads=4)) == list(range(30))
    assert not readers()
    assert workers() >= 1


def test_no_more_is_read_than_the_depth():
    begun, drawn = [], []

    def keys():
        for i in range(100):
            drawn.append(i)
            yield i

    values = ahead(lambda i: begun.append(i) or i, keys(), threads=2, depth=3)
    assert not begun  # nothing happens before the first is asked for
    assert [next(values) for _ in range(5)] == [0, 1, 2, 3, 4]
    time.sleep(0.02)
    assert len(drawn) == 5 + 3
    assert len(begun) <= 5 + 3
    values.close()
    assert not readers()


def test_an_error_comes_where_its_value_would_have():
    def read(i):
        if i == 3:
            raise DataError("three is bad")
        return i

    values, taken = ahead(read, range(10), threads=3), []
    with pytest.raises(DataError, match="three is bad"):
        taken.extend(values)
    assert taken == [0, 1, 2]
    values = ahead(read, range(10), threads=3)
    assert [next(values) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(DataError, match="three is bad"):
        next(values)
    assert not readers()


def test_keys_are_drawn_by_the_caller():
    here, seen = threading.get_ident(), set()

    def keys():
        for i in range(9):
            seen.add(threading.get_ident())
            yield i

    list(ahead(lambda i: i, keys(), threads=2))
    assert seen == {here}


@pytest.fixture
def batches():
    taken = []
    batches = Ahead(
        lambda rows: taken.append(rows) or rows * 10, lambda step: torch.tensor([step, step + 1]), 20
    )
    yield batches, taken
    batches.close()


def test_a_batch_follows_from_its_step(batches):
    read, taken = batches
    for step in (*range(8), 3, 19, 4, 5):
        assert read(step).tolist() == [10 * step, 10 * step + 10]
    assert max(int(rows[0]) for rows in taken) == 19  # never beyond the last


def test_steps_in_turn_are_read_once(batches):
    read, taken = batches
    for step in range(20):
        read(step)
    assert sorted(int(rows[0]) for rows in taken) == list(range(20))


def test_closing_ends_the_threads(batches):
    read, _ = batches
    read(0)
    assert readers()
    read.close()
    assert not readers()
    assert read(1).tolist() == [10, 20]
