"""The table of an experiment: medians and spreads over runs, what diverged, the best, the published."""

import json
import math
import re
from dataclasses import replace

import pytest
from pages import text_of

from mfimage.experiments.tables import ExperimentReport, Metric, Runs

NAN, INF = math.nan, math.inf


@pytest.fixture(scope="module")
def full():
    return ExperimentReport(
        title="Circle",
        sentence="Three runs.",
        metrics=[
            Metric("distance", "from the circle", "lower"),
            Metric("AUC", "", "higher"),
            Metric("log p", "nats"),
        ],
        rows={
            "AF": {
                "distance": Runs((0.51, 0.58, 0.6), 0.58),
                "AUC": Runs((0.9, 0.8, 0.7), 0.99),
                "log p": Runs((-3.94, -4.5, -3.2)),
            },
            "M-flow <A>": {"distance": Runs((0.009, NAN, 0.008), 0.038), "AUC": Runs((0.95, NAN, NAN))},
            "OT": {"distance": Runs((NAN, NAN, NAN), 0.007), "AUC": Runs((NAN, NAN, NAN))},
        },
        diverged={"M-flow <A>": 1, "OT": 3},
    )


def row_of(report, algorithm):
    """A row as text: its small print, and of each cell the text, * for the best, and small print."""
    row = next(row for row in report.table().rows if row.name == algorithm)
    return [row.small, *("; ".join([cell.text + "*" * cell.best, *cell.small]) for cell in row.cells)]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((), (NAN, NAN, NAN)),
        ((NAN, INF), (NAN, NAN, NAN)),
        ((2.0,), (2.0, 2.0, 2.0)),
        ((3.0, 1.0, 2.0, NAN), (2.0, 1.0, 3.0)),
        ((4.0, 1.0, 2.0, 3.0), (2.5, 1.0, 4.0)),
        (tuple(map(float, range(101))), (50.0, 16.0, 84.0)),
        ((0.0, 1.0, 2.0, 3.0, 4.0, -INF), (2.0, 0.64, 3.36)),
    ],
)
def test_median_and_spread(values, expected):
    runs = Runs(values)
    assert runs.summary() == pytest.approx(expected, nan_ok=True)


def test_json_has_medians_and_spreads_only(full):
    table = full.as_json()
    assert json.loads(json.dumps(table, allow_nan=False)) == table
    assert table["AF"]["distance"] == [0.58, 0.51, 0.6]
    assert table["OT"] == {"distance": [None, None, None], "AUC": [None, None, None]}
    assert list(table["M-flow <A>"]) == ["distance", "AUC"]
    assert table["M-flow <A>"]["AUC"] == [0.95, 0.95, 0.95]


def test_text_is_aligned(full):
    text = full.table().text()
    lines = text.splitlines()
    assert lines[0].split() == ["algorithm", "distance", "↓", "AUC", "↑", "log", "p"]
    assert [line.split(maxsplit=1)[0] for line in lines[2::2]] == ["AF", "M-flow", "OT"]
    ends = {lines[i].index(text) + len(text) for i, text in ((2, "0.580"), (3, "–0.600"), (4, "0.00850"))}
    assert len(ends) == 1  # medians end in one column, spreads under them
    assert re.search(r"0\.580 +\[0\.58\]", lines[2])
    assert "−4.50 – −3.20" in lines[3]
    assert lines[5].startswith("  1 of 3 diverged")
    assert "1 of 2 runs" not in text
    assert "1 of 3 runs" in lines[5]  # one of the two that did not diverge has no AUC
    assert re.search(r"diverged +\[0\.007\]", lines[6])
    assert not any(line.endswith(" ") for line in lines)
    assert ExperimentReport("t", "s").table().text() == "algorithm"


def test_the_table_shows_medians_spreads_and_published_numbers(full):
    assert row_of(full, "AF") == [
        "", "0.580; 0.510–0.600", "0.58", "0.800; 0.700–0.900", "0.99", "−3.94; −4.50 – −3.20"
    ]  # fmt: skip
    assert row_of(full, "M-flow <A>") == [
        "1 of 3 diverged", "0.00850*; 0.00800–0.00900", "0.038", "0.950*; 1 of 3 runs", "", "–"
    ]  # fmt: skip
    assert [column.name for column in full.table().columns if not column.cited] == [
        "algorithm", "distance ↓", "AUC ↑", "log p"
    ]  # fmt: skip


def test_what_diverged_is_shown_as_such(full):
    assert row_of(full, "OT") == ["3 of 3 diverged", "diverged", "0.007", "diverged", "", "diverged"]
    counted = replace(full, rows={"A": {}}, diverged={"A": 2})
    assert row_of(counted, "A")[:2] == ["2 of 2 diverged", "diverged"]


@pytest.mark.parametrize(
    ("better", "medians", "bold"),
    [
        ("lower", [1.0, 2.0, 3.0], "A"),
        ("higher", [1.0, 2.0, 3.0], "C"),
        ("lower", [-1.0, 0.0, NAN], "A"),
        ("lower", [1.0, 1.0001, 2.0], "AB"),
        ("lower", [1.0, 1.0001, NAN], ""),
        ("lower", [0.0, 1e-17, NAN], "A"),
        ("lower", [NAN, NAN, NAN], ""),
        ("higher", [NAN, 1.0, NAN], ""),
        (None, [1.0, 2.0, 3.0], ""),
    ],
)
def test_the_best_is_marked(better, medians, bold):
    rows = {name: {"m": Runs((v,))} for name, v in zip("ABC", medians, strict=True)}
    report = ExperimentReport("t", "s", metrics=[Metric("m", "", better)], rows=rows)
    assert "".join(name for name in "ABC" if "*" in row_of(report, name)[1]) == bold
    lead = f"s Best by m {', '.join(bold)}." if bold else "s"
    assert report.page().lead == lead


def test_the_page_says_how_the_table_is_read(full):
    page = full.page().html()
    said = text_of(page, "numbers")
    assert "Median of 3 runs; below it the lowest and the highest. Runs that diverged are counted" in said
    assert "Grey: as published." in said
    assert "0.00850</strong> 0.00800–0.00900 0.038" in said
    many = replace(full, rows={"A": {"distance": Runs((1.0,) * 5)}}, diverged={})
    assert "16 % to 84 % of them" in text_of(many.page().html(), "numbers")
    plain = text_of(replace(many, rows={"A": {"distance": Runs((1.0,))}}).page().html(), "numbers")
    assert "One run each." in plain
    assert "published" not in plain
    assert "diverged" not in plain


def test_empty_parts_are_left_out(full):
    assert "<section" not in ExperimentReport("only a title", "and a sentence").page().html()
    assert "<section" not in replace(full, metrics=()).page().html()
