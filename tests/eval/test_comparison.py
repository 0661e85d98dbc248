"""Evaluations side by side: what is ranked, and what never is."""

import json

import pytest
import torch
from PIL import Image

from mfimage.errors import DataError, UsageError
from mfimage.eval import Evaluation, Number, compare


def report(error, fid=None, *, sha="a", dim=2, weights="w", n=50, protocol="mfimage", half=0.1):
    def number(value, **more):
        return Number(value, n, (value - half, value + half), **{"weights": "m", **more})

    numbers = {
        "mse": number(error, better="lower"),
        "psnr": number(-error, unit="dB", better="higher"),
        "log_prob": number(-9.0, unit="nats"),
        "rank": number(2.0),
    }
    if fid is not None:
        numbers["fid"] = number(fid, better="lower", weights=weights)
    data = {"test": {"sha256": sha, "count": 50}, "train": {"sha256": "t", "count": 200}}
    skipped = {} if fid is not None else {"fid": "no weights"}
    model = {"dim": dim, "sha256": "m", "parameters": 10}
    return Evaluation(model, data, {"name": protocol, "says": "so"}, numbers, skipped)


def test_models_are_ranked_by_what_compares():
    compared = compare({"a": report(3.0, 10.0), "b": report(2.0, 30.0), "c": report(4.0, 20.0)})
    assert compared.ranking("mse") == [("b", 2.0), ("a", 3.0), ("c", 4.0)]
    assert [name for name, _ in compared.ranking("psnr")] == ["b", "a", "c"]
    assert [name for name, _ in compared.ranking("fid")] == ["a", "c", "b"]
    assert set(compared.as_json()["rankings"]) == {"mse", "psnr", "fid"}


def test_densities_of_different_models_are_never_ranked():
    compared = compare({"a": report(1.0), "b": report(1.0, dim=3)})
    for by in ("density", "log_prob"):
        with pytest.raises(UsageError, match=r"ranked by log_prob \(a: d = 2, b: d = 3\): each density is"):
            compared.ranking(by)
    assert compared.best("log_prob") == []
    assert "log_prob" not in compared.as_json()["rankings"]
    assert any("not ranked: log_prob: each density is per volume" in note for note in compared.notes())


def test_what_was_not_measured_alike_is_refused():
    with pytest.raises(DataError, match="different images"):
        compare({"a": report(1.0), "b": report(1.0, sha="b")})
    with pytest.raises(DataError, match="a by mfimage, b by clean-fid"):
        compare({"a": report(1.0), "b": report(1.0, protocol="clean-fid")})
    compared = compare({"a": report(1.0), "b": report(1.0, 3.0)})
    with pytest.raises(DataError, match="a: was not measured by fid: no weights"):
        compared.ranking("fid")
    with pytest.raises(UsageError, match="compared by mse, psnr, not by 'beauty'"):
        compared.ranking("beauty")
    with pytest.raises(UsageError, match="neither more nor less"):
        compared.ranking("rank")
    with pytest.raises(UsageError, match="nothing to compare"):
        compare({})


def test_other_weights_or_other_counts_are_not_ranked():
    compared = compare({"a": report(1.0, 5.0), "b": report(1.0, 3.0, weights="v")})
    with pytest.raises(UsageError, match="different weights of the feature network"):
        compared.ranking("fid")
    assert [run for run, _ in compared.ranking("mse")] == ["a", "b"]
    with pytest.raises(UsageError, match="different numbers of images"):
        compare({"a": report(1.0), "b": report(1.0, n=60)}).ranking("mse")


def test_what_intervals_cannot_tell_apart_is_marked_alike():
    compared = compare({"a": report(1.0), "b": report(1.15), "c": report(2.0)})
    assert compared.best("mse") == ["a", "b"]
    assert compared.best("psnr") == ["a", "b"]
    assert compare({"a": report(1.0)}).best("mse") == []
    first = next(line for line in compared.text().splitlines() if line.startswith("mse"))
    assert first.split() == ["mse", "↓", "50", "1.000*", "1.150*", "2.000"]
    assert "| mse ↓ | 50 | **1.000** | **1.150** | 2.000 |" in compared.markdown()


def test_a_comparison_writes_tables_a_page_and_a_sheet(tmp_path):
    rows = {"held-out images": torch.rand(12, 1, 8, 8), "a: samples": torch.rand(12, 3, 8, 8)}
    compared = compare({"a": report(1.0, 4.0), "b": report(2.0, 3.0)}, rows)
    page = compared.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "comparison.html", "comparison.json", "comparison.md", "sheet.png"
    ]  # fmt: skip
    assert json.loads((tmp_path / "comparison.json").read_text())["rankings"]["fid"][0]["run"] == "b"
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (12 * 10 + 2, 2 * (18 + 12))
    text = page.read_text(encoding="utf-8")
    assert "<strong>1.000</strong>" in text
    assert text.count("data:image/png") == 2
    assert "https:" not in text
