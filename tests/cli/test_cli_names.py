"""Names of files that would say or do something else where they are printed, listed or read as a pattern."""

import json
import os
from pathlib import Path

import pytest
from commands import table
from PIL import Image

from mfimage.cli.lists import listed_paths


def draw(*names):
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), len(name)).save(name, "PNG")


HOSTILE = ["a\nb.png\t0.png", "\x1b[31mred\x1b[0m.png", "r\rs.png", "u\u2028v\x0cw.png"]


def test_a_name_is_one_line_of_the_result_and_cannot_be_another_files(mfimage, tiny_run):
    draw(*HOSTILE)
    code, out, _ = mfimage("score", *HOSTILE, "-m", tiny_run)
    lines = [line.split("\t") for line in out.split("\n")[:-1]]
    assert code == 0
    assert [name for name, _ in lines] == [
        r"a\nb.png\t0.png", r"\x1b[31mred\x1b[0m.png", r"r\rs.png", r"u\u2028v\x0cw.png"
    ]  # fmt: skip
    assert out.splitlines() == out.split("\n")[:-1]  # whatever is taken for the end of a line
    found = json.loads(mfimage("score", *HOSTILE, "-m", tiny_run, "--json")[1])["scores"]
    assert [row["path"] for row in found] == HOSTILE


@pytest.mark.parametrize("verb", [["denoise", "-o", "out"], ["log-prob"], ["directions", "-o", "out"]])
def test_every_verb_prints_a_line_an_image(mfimage, tiny_run, verb):
    draw(*HOSTILE)
    code, out, err = mfimage(verb[0], *HOSTILE, "-m", tiny_run, *verb[1:])
    assert code == 0, err
    lines = out.splitlines()
    assert len(lines) == len(HOSTILE) + (verb[0] == "directions")
    assert not any("\x1b" in text or "\r" in text for text in (out, err))


def test_skipped_files_and_errors_cannot_forge_a_message(mfimage, tiny_run):
    draw("good.png")
    forged = "x\nmfimage: all is well\x1b[2J.png"
    Path(forged).touch()
    for given in ([forged, "good.png", "--max-bad", 0.5], [forged]):
        _, _, err = mfimage("score", *given, "-m", tiny_run)
        assert "all is well" in err
        assert not any(line.startswith("mfimage: all") for line in err.splitlines())
        assert "\x1b" not in err


def test_cells_are_no_formulas_and_rows_stay_rows(mfimage, tiny_run):
    names = ["=1+1.png", "+cmd.png", "@sum.png", "-2.png", "\tx.png", "r\rs.png", "q\nr.png", "plain.png"]
    draw(*names)
    given = [f"./{name}" if name.startswith("-") else name for name in names]
    assert mfimage("score", *given, "-m", tiny_run, "--csv", "t.csv")[0] == 0
    rows = table("t.csv")
    assert [row["path"] for row in rows] == [
        "'=1+1.png", "'+cmd.png", "'@sum.png", "'-2.png", "'\tx.png", "r\rs.png", "q\nr.png", "plain.png"
    ]  # fmt: skip
    assert all(float(row["score"]) >= 0 for row in rows)


def test_a_pattern_in_a_folder_with_brackets_and_stars(mfimage, tiny_run):
    draw("photos [2020]/1.png", "photos [2020]/2.png", "photos 2/3.png", "a*b/4.png", "c/[x] 5.png")

    def found(pattern):
        code, out, _ = mfimage("score", pattern, "-m", tiny_run)
        return code, [line.split("\t")[0] for line in out.splitlines()]

    assert found("photos [2020]/*.png") == (0, ["photos [2020]/1.png", "photos [2020]/2.png"])
    assert found("photos [0-9]/*.png") == (0, ["photos 2/3.png"])
    assert found("a*b/?.png") == (0, ["a*b/4.png"])
    assert found("c/[x]*.png") == (0, ["c/[x] 5.png"])
    assert found(f"{os.getcwd()}/photos [2020]/1*")[1] == [f"{os.getcwd()}/photos [2020]/1.png"]


def test_lists_of_paths_are_read_as_any_system_writes_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = ["a b.png", "c\u2028d.png", "e\x0cf.png", "g\x85h.png"]
    text = "".join(f"{name}\r\n" for name in expected)
    assert listed_paths(b"\xef\xbb\xbf" + text.encode()) == expected
    assert listed_paths(text.encode("utf-16")) == expected
    assert listed_paths(text.replace("\r", "").encode()) == expected
    assert listed_paths(b"one\ntwo.png\0three.png\0") == ["one\ntwo.png", "three.png"]
    assert listed_paths(b"caf\xe9.png\n") == ["caf\udce9.png"]
    (tmp_path / "m.png\r").touch()
    assert listed_paths(b"m.png\r\nn.png\r\n\r\n") == ["m.png\r", "n.png"]


def test_a_folder_whose_name_is_no_text_holds_a_whole_run(mfimage, short, bumps):
    outdir = os.fsdecode(b"r\xe9sum\xe9")
    try:
        Path(outdir).mkdir()
    except (OSError, UnicodeError):
        pytest.skip("this file system allows no such names")
    code, out, err = mfimage("train", bumps, "-o", outdir, "--config", short, "-q", "--json")
    assert code == 0
    assert err == "note: no curves for TensorBoard: the name of the run's directory is no UTF-8\n"  # once
    assert json.loads(out)["model"] == f"{outdir}/model"
    assert Path(outdir, "stats.jsonl").stat().st_size > 1000
    assert mfimage("sample", "-m", outdir, "-n", 1, "-q")[0] == 0


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_configuration_may_begin_with_a_byte_order_mark(mfimage, mark):
    Path("config.json").write_bytes((mark + '{"dim": 5}\r\n').encode())
    code, out, _ = mfimage("train", "--config", "config.json", "--print-config")
    assert (code, json.loads(out)["dim"]) == (0, 5)
