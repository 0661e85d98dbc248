"""Measures, rows, steps, bars and page of benchmarks/ood.py."""

import importlib
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import smooth_pictures

from mfimage.datasets import ImageSet
from mfimage.errors import UsageError
from mfimage.eval.score_metrics import auroc

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
bars, families, measures, page, parts, place, rows, sets, tables = (
    importlib.import_module(f"strange.{name}")
    for name in ("bars", "families", "measures", "page", "parts", "place", "rows", "sets", "tables")
)
ood = importlib.import_module("ood")
LeftOutError = importlib.import_module("harness").LeftOutError
sys.path.pop(0)
Family = families.Family


def test_the_share_flagged_by_hand():
    known = torch.arange(1.0, 100.0)[torch.randperm(99, generator=torch.Generator().manual_seed(0))]
    scores = torch.tensor([95.0, 95.5, 99.0, 99.5, torch.inf, torch.nan])
    found = measures.flagged(known, scores)
    # Thresholds are the ⌈100 · .95⌉-th and the ⌈100 · .99⌉-th of 99; for one in a thousand 999 are needed.
    assert found == {"0.05": pytest.approx(5 / 6), "0.01": pytest.approx(3 / 6), "0.001": None}


def test_matched_sides_have_the_same_bits():
    draw = torch.Generator().manual_seed(0)
    familiar = 3 + torch.randn(4000, generator=draw)
    strange = torch.cat([4.5 + 1.5 * torch.randn(3000, generator=draw), torch.tensor([-9.0, 99.0])])
    assert auroc(familiar, strange) > 0.75
    one, other = measures.matched(familiar, strange)
    assert len(one) == len(other) > 500
    assert len(one.unique()) == len(one)
    assert len(other.unique()) == len(other)
    assert not {3000, 3001} & set(other.tolist())
    assert auroc(familiar[one], strange[other]) == pytest.approx(0.5, abs=0.01)
    again = measures.matched(familiar, strange)
    assert again[0].equal(one)
    assert again[1].equal(other)
    apart = measures.matched_cell((familiar, strange), (familiar, strange + 100), familiar)
    assert apart is None
    cell = measures.matched_cell((familiar, strange), (familiar, strange), familiar)
    assert cell["auroc"] == cell["bits_auroc"] == pytest.approx(0.5, abs=0.01)
    equal = torch.ones(60)
    assert [len(side) for side in measures.matched(equal, equal)] == [60, 60]


def test_a_pair_that_a_free_row_wins_proves_nothing():
    cell = {"auroc": 0.95, "auroc_interval": [0.94, 0.96]}
    assert measures.proves_nothing(cell, {"a": 0.5, "b": 0.939}) == {
        "row": "b",
        "auroc": 0.939,
        "wins": False,
    }
    assert measures.proves_nothing(cell, {"a": 0.945, "b": 0.5})["wins"]


def test_counts_of_false_alarms_follow_the_interval():
    draw, known, fresh = np.random.default_rng(0), 200, 300
    low, high = measures.expected_alarms(known, fresh, 0.05)
    scores = torch.from_numpy(draw.random((2000, known + fresh)))
    counts = np.array([measures.flagged(s[:known], s[known:])["0.05"] * fresh for s in scores])
    inside = ((low <= counts) & (counts <= high)).mean()
    assert 0.94 < inside < 0.975
    assert high - low > 1.2 * 2 * 1.96 * np.sqrt(fresh * 0.05 * 0.95)  # chance in the threshold is in it


def few_levels(count):
    """Grey images that zlib makes smaller."""
    return Family("posterise", {"levels": 8}).of(smooth_pictures(count, 1))


def test_rows_that_cost_nothing_see_both_ends_and_no_more():
    x = few_levels(400)
    score = rows.free(x[:200])
    usual, mirrored = score(x[200:]), score(x[200:].flip(3))
    assert set(usual) == set(rows.FREE)
    for name, few in (("mean and contrast", 0.3), ("gradient energy", 0.1)):
        assert auroc(usual[name], mirrored[name]) == pytest.approx(0.5, abs=0.01)
        assert auroc(usual[name], score(0.5 + few * (x[200:] - 0.5))[name]) > 0.9
    for made in ("constant", "uniform_noise"):
        assert auroc(usual["zlib bytes"], score(Family(made).of(x[200:]))["zlib bytes"]) > 0.99


def a_task():
    x = few_levels(800)
    strange = {
        name: Family(kind).of(x[600:]) for name, kind in (("noise", "uniform_noise"), ("mirrored", "mirror"))
    }
    training = ImageSet(x[:200].mul(255).byte(), "some", "train", ("",) * 200)
    return sets.Task(
        "some", training, x[200:400], x[400:600], strange, ("noise",), ("without digits: none here",)
    )


def a_table():
    """Of `auto` by contrast, and what costs nothing."""
    task = a_task()
    training = task.training.batch(slice(None))

    def auto(x):
        return {"auto": x.flatten(1).std(1)}

    def beside(x):
        return {"5 nearest neighbours, PCA-8": x.flatten(1).amax(1)}

    return tables.table_of(task, [lambda: auto, lambda: rows.free(training), lambda: beside])


def test_a_table_has_every_row_and_marks_what_proves_nothing():
    found = a_table()
    assert set(found["rows"]) == {"auto", *rows.FREE, "5 nearest neighbours, PCA-8"}
    assert found["rows"]["auto"]["noise"]["auroc"] > 0.9
    assert found["rows"]["auto"]["noise"]["flagged"]["0.001"] is None
    assert found["rows"]["auto"]["mirrored"]["auroc"] == pytest.approx(0.5, abs=0.07)
    assert found["nothing"]["noise"]["wins"]
    assert found["matched"]["noise"] is None
    assert found["matched"]["mirrored"]["bits_auroc"] == pytest.approx(0.5, abs=0.02)
    assert found["notes"] == ["without digits: none here"]
    assert bars.mean_and_worst(found["rows"]["auto"], ["noise", "mirrored", "gone"])[1] > 0.9


def test_a_step_is_kept_until_what_it_hangs_on_changes(tmp_path):
    where, asked, calls = place.Place(tmp_path), {"seconds": 1}, []

    def measure():
        calls.append(1)
        if len(calls) == 1:
            raise LeftOutError("not there yet")
        return {"value": len(calls)}

    step = parts.Step("part", "name", lambda: dict(asked), measure)
    assert step.found(where) == {"left_out": "not there yet"}
    assert step.found(where) == {"value": 2}
    assert step.found(where) == {"value": 2}
    asked["seconds"] = 2
    assert step.found(where) == {"value": 3}
    assert step.found(where, anew=True) == {"value": 4}
    stored = json.loads((tmp_path / "found" / "part" / "name.json").read_text())
    assert stored == {"asked": {"seconds": 2}, "found": {"value": 4}}


def all_found():
    """Results of every part."""
    table = {**a_table(), "trained_cpu_seconds": 480.0, "components": 3}
    cells = {"count": 9, "low": 5, "high": 20, "inside": True}
    alarms = {"alphas": {"0.05": cells, "0.01": {**cells, "inside": False}, "0.001": None}}
    tried = {**table, "families": {"noise": "uniform_noise", "mirrored": "mirror"}, "sha256": "ab" * 32}
    names = [f"kind {i}" for i in range(10)]
    classes = {}
    for name in names:
        one = {**table, "rows": {row: {name: c["noise"]} for row, c in table["rows"].items()}}
        classes[name] = {**one, "matched": {name: None}, "nothing": {name: table["nothing"]["noise"]}}
    return {
        "clothes": {"clothes": table}, "clothes-treated": {"clothes": table}, "leave-out": classes,
        "cifar": {"all": {"left_out": "no folder"}},
        "false-alarms": {f"clothes-{i}": {**alarms, "calibration": 200, "fresh": 200} for i in range(5)},
        "families": {"mine-clothes": tried},
        "speed": {"clothes": {"images": 2000, "rate": 350.0}},
    }  # fmt: skip


def test_bars_are_met_missed_or_not_measured():
    found = all_found()
    by_name = {bar.name: bar for bar in bars.bars(found)}
    assert by_name["clothes a CPU second"].met is True
    assert by_name["faces a CPU second"].met is None
    assert by_name["clothes, mean AUROC of ten classes left out"].met is True
    assert by_name["clothes, mean AUROC of nine"].found is None  # of another list
    found["leave-out"].popitem()
    assert {bar.name: bar for bar in bars.bars(found)}[
        "clothes, mean AUROC of ten classes left out"
    ].met is None
    assert bars.inside_of(found, "clothes") == [True, False] * 5
    for one in found["false-alarms"].values():
        one["alphas"]["0.001"] = one["alphas"]["0.05"]
    (bar,) = (bar for bar in bars.bars(found) if bar.name.startswith("clothes, rates of false alarms"))
    assert (bar.found, bar.met) == (10.0, False)


def test_the_page_is_written_of_what_is_there(tmp_path):
    found = all_found()
    text = page.write_page(tmp_path / "ood.md", "What it is.", found).read_text(encoding="utf-8")
    assert "| clothes a CPU second | ≥ 300 | **350** | pass |" in text
    assert "| faces a CPU second | ≥ 40 | not measured | – |" in text
    assert "| kind 9 | " in text
    assert "| mean of 10 | " in text
    assert re.search(r"∅ [a-z ]+ 1\.000 \(100 / 100 / –\)", text)
    assert "Left out: cifar (all): no folder." in text
    assert "| clothes-4 | 200 | 200 | 9 (5–20) | 9 (5–20) outside | too few to calibrate |" in text
    assert "clothes 5 of 10" in text
    assert "Mirrored images are no failure" in text
    assert "Without digits: none here." in text
    widths = {}
    for line in (line for line in text.splitlines() if line.startswith("|")):
        widths.setdefault(line.count("|"), []).append(line)
    assert all(len(lines) > 2 for lines in widths.values())  # rows are as wide as their heads
    bare = page.write_page(tmp_path / "bare.md", "What it is.", {}).read_text(encoding="utf-8")
    assert bare.count("not measured") == len(bars.bars({}))


def test_what_is_asked_wrongly_is_said_before_any_work(tmp_path):
    for given, said in (
        (["--parts", "clothes,melons"], "there is no part 'melons'; there are clothes, "),
        (["--data", "melons"], "there is no set 'melons'"),
        (["--peers", "melons"], "there is no row 'melons'"),
        (["--parts", "families"], "--families FILE.json"),
    ):
        with pytest.raises(UsageError, match=said):
            ood.place_of(ood.arguments_of(given))
    mine = tmp_path / "mine.json"
    mine.write_text('{"a": {"kind": "mirror"}}')
    where, asked = ood.place_of(ood.arguments_of(["--families", str(mine), "--peers", "none"]))
    assert asked == ("families",)
    assert where.peers == ()
    assert [step.name for step in parts.families(where)] == ["mine-clothes", "mine-faces"]
