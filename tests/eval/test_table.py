"""How numbers are written and the best marked; tables in a terminal and in Markdown."""

import math

import pytest

from mfimage.eval.table import Cell, Column, Row, Table, mark_best, number

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("value", "digits", "size", "text"),
    [
        (20.6123, 4, None, "20.61"),
        (9.8, 4, 12.34, "9.80"),
        (0.99996, 4, None, "1.000"),
        (-9.9996, 4, None, "−10.00"),
        (-1234.5, 4, None, "−1,234"),
        (0.001, 4, None, "0.001000"),
        (1.5e-7, 4, None, "1.500 × 10⁻⁷"),
        (-2e9, 2, None, "−2.0 × 10⁹"),
        (1e-9, 1, None, "10⁻⁹"),
        (12345, 4, None, "12,345"),
        (0.0, 4, None, "0"),
        (NAN, 4, None, "–"),
        (None, 4, None, "–"),
        (INF, 4, None, "∞"),
        (-INF, 4, None, "−∞"),
        ("none", 4, None, "none"),
    ],
)
def test_a_number_is_written_to_its_digits(value, digits, size, text):
    assert number(value, digits, size) == text


@pytest.mark.parametrize(
    ("values", "better", "texts", "bold"),
    [
        ([NAN, 2.5], "higher", "– 2.500", ""),
        ([None, None], "lower", "– –", ""),
        ([1.0, None], "lower", "1.000 –", ""),
        (["none", 1.5], "higher", "none 1.500", ""),
        ([INF, 30.0], "higher", "∞ 30.00", "A"),
        ([2.00001, 2.00002], "lower", "2.000 2.000", ""),
        ([3.0, 2.0], None, "3.000 2.000", ""),
        ([3.0, 2.0], "lower", "3.000 2.000", "B"),
        ([9.8, 12.34], "lower", "9.800 12.34", "A"),
        ([0.001, 12.34], "lower", "0.001000 12.34", "A"),
        ([1.5e-7, 2e-7], "lower", "1.500×10⁻⁷ 2.000×10⁻⁷", "A"),
        ([12345, 0.0], "lower", "12,345 0", "B"),
        ([-3.0, -2.0], "higher", "−3.000 −2.000", "B"),
        ([1.0, 1.00001, 2.0], "lower", "1.000 1.000 2.000", "AB"),
        ([-1.0, 0.0, NAN], "lower", "−1.000 0 –", "A"),
    ],
)
def test_the_best_of_numbers_is_marked(values, better, texts, bold):
    written = list(map(number, values))
    assert [text.replace(" × ", "×") for text in written] == texts.split()
    marks = mark_best(values, better, written)
    assert "".join(name for name, mark in zip("ABC", marks, strict=False) if mark) == bold


def test_values_whose_intervals_meet_that_of_the_best_are_marked_too():
    intervals = [(0.9, 1.1), (1.05, 1.25), (1.9, 2.1), None]
    assert mark_best([1.0, 1.15, 2.0, 1.1], "lower", list("abcd"), intervals) == [True, True, False, True]
    assert mark_best([1.0, 1.15, 2.0, 1.1], "higher", list("abcd"), intervals) == [False, False, True, False]
    assert mark_best([1.0, 2.0], "lower", list("ab"), [(NAN, NAN), None]) == [True, False]


@pytest.fixture
def table():
    return Table(
        [Column("model"), Column("error ↓", "a pixel"), Column("published", cited=True), Column("N")],
        [
            Row("a|b", [Cell("1.00", True, ("0.90–1.10",)), Cell("0.58"), Cell("10")], "1 of 3 diverged"),
            Row("pca", [Cell("12.00"), Cell(""), Cell("9")], words="chance 0.5"),
        ],
    )


def test_columns_stand_under_each_other_in_a_terminal(table):
    assert table.text().splitlines() == [
        "model                error ↓  published   N",
        "                     a pixel",
        "a|b                     1.00* [0.58]     10",
        "  1 of 3 diverged  0.90–1.10",
        "pca                    12.00              9  chance 0.5",
    ]
    assert Table([Column("model")], []).text() == "model"


def test_markdown_has_as_many_cells_in_every_row(table):
    lines = table.markdown().splitlines()
    assert lines[0] == "| model | error ↓ (a pixel) | published | N |  |"
    assert lines[1] == "|---|---:|---:|---:|---|"
    assert lines[2] == r"| a\|b (1 of 3 diverged) | **1.00** (0.90–1.10) | 0.58 | 10 |  |"
    assert lines[3] == "| pca | 12.00 |  | 9 | chance 0.5 |"
