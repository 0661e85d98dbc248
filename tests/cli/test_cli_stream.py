import io
import json
import shutil
import signal
import time

import numpy as np
import pytest
from commands import fails
from tiny import draw_bumps, run_command, write_images

from mfimage.cli.lists import arriving_paths


@pytest.fixture(scope="module")
def calibrated(tiny_run, tmp_path_factory):
    """A calibrated copy of the tiny run; not to be written to."""
    from mfimage import Detector, from_pretrained, load

    place = tmp_path_factory.mktemp("calibrated")
    run = shutil.copytree(tiny_run, place / "run")
    np.save(place / "fresh.npy", draw_bumps(400, seed=11))
    Detector(from_pretrained(run)).calibrate(load(place / "fresh.npy", "all"), 0.02).save(run / "model")
    return run


@pytest.fixture
def listed(mfimage):
    """Folders same/ of thirty familiar images and odd/ of six strange ones, as lines of a list."""
    write_images("same", draw_bumps(30, seed=5))
    write_images("odd", np.full((6, 8, 8), 90, np.uint8))
    return [f"same/{i}.png" for i in range(30)], [f"odd/{i}.png" for i in range(6)]


def test_a_list_is_scored_as_its_images_are_by_themselves(mfimage, calibrated, listed):
    same, odd = listed
    code, out, err = mfimage("score", "-", "-m", calibrated, "--jsonl", given="\n".join([*same, *odd, ""]))
    assert code == 0, err
    rows = [json.loads(line) for line in out.splitlines()]
    alone = json.loads(mfimage("score", *same, *odd, "-m", calibrated, "--json")[1])["scores"]
    told = [row.pop("drift") for row in rows]
    assert rows == alone
    assert not any(told[:30])
    assert "36 images, " in err
    lines = mfimage("score", "-", "-m", calibrated, given="\n".join(same))[1].splitlines()
    assert [line.split("\t")[0] for line in lines] == same


def test_what_cannot_be_read_is_a_line_and_stops_nothing(mfimage, calibrated, tiny_run, listed):
    same, odd = listed
    (open("same/broken.png", "wb")).close()
    given = "\n".join(["gone.png", same[0], "same/broken.png", "same", *odd])
    code, out, err = mfimage("score", "-", "-m", calibrated, "--jsonl", "--fail-on-ood", given=given)
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 10
    assert [row["path"] for row in rows] == given.split("\n")
    assert [row["verdict"] for row in rows[:4]] == ["unreadable", "familiar", "unreadable", "unreadable"]
    assert rows[0]["reason"] == "cannot be read: No such file or directory"
    assert rows[2]["sentence"] == "not read: is empty (0 bytes)"
    assert len({tuple(row) for row in rows}) == 1  # all have the same columns
    assert "10 images, 6 strange, 3 not read" in err
    lines = mfimage("score", "-", "-m", tiny_run, given=given)[1].splitlines()
    assert [line.count("\t") for line in lines] == [
        2
    ] * 10  # path, score and reason of what is not calibrated


def test_drift_is_told_at_the_image_and_in_words(mfimage, calibrated, listed):
    dark = (0.8 * draw_bumps(120, seed=6)).astype(np.uint8)
    write_images("dark", dark)
    given = "\n".join([*listed[0], *(f"dark/{i}.png" for i in range(120))])
    code, out, err = mfimage("score", "-", "-m", calibrated, "--jsonl", "--per-day", 1000, given=given)
    assert code == 0, err
    rows = [json.loads(line) for line in out.splitlines()]
    told = {alarm["statistic"]: (at, alarm) for at, row in enumerate(rows, 1) for alarm in row["drift"]}
    at, alarm = told["brightness"]
    assert alarm["noticed"] == at
    assert alarm["words"] == "darker than familiar images"
    assert 20 < alarm["since"] <= at
    assert "drift: darker than familiar images since about image" in err


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("score", 2, "name images"),
        ("score - same", 2, "a stream stands alone"),
        ("score same --watch same", 2, "a stream stands alone"),
        ("score - --csv t.csv --report p.html", 2, "--csv and --report: not of a stream"),
        ("score - --json", 2, "--json: not of a stream"),
        ("score - --until-idle 3", 2, "--until-idle is for --watch"),
        ("score same --drift 1/month", 2, "--drift is for a stream"),
        ("score same --budget 3/day", 2, "--budget and --per-day belong together"),
        ("score same --per-day 100", 2, "--budget and --per-day belong together"),
        ("score - --budget 3/fortnight", 2, "a rate above 0 is expected"),
        ("score - --budget 3/day --per-day 90000", 2, "160 calibration images cannot promise 3 strange"),
        ("score same --budget 3/day --per-day 90000", 2, "160 calibration images cannot promise 3 strange"),
        ("score --watch none", 3, "none: no such folder to watch"),
        ("score same --colour", 2, "Unknown option: --colour"),
    ],
)
def test_what_makes_no_sense_is_refused(mfimage, calibrated, listed, line, code, words):
    assert fails(mfimage(*line.split(), "-m", calibrated), code, words)


def test_a_budget_sets_the_threshold_of_a_set(mfimage, calibrated, listed):
    given = ("score", "same", "-m", calibrated, "--json", "--per-day", 100)
    found = [json.loads(mfimage(*given, "--budget", budget)[1])["scores"] for budget in ("1/day", "50/day")]
    strange = [sum(row["verdict"] == "strange" for row in rows) for rows in found]
    assert strange[0] <= 3 < strange[1]


def test_a_budget_needs_a_calibration(mfimage, tiny_run, listed):
    for option in (("--budget", "3/day"), ("--drift", "1/week"), ("--fail-on-ood",)):
        assert fails(mfimage("score", "-", "-m", tiny_run, *option), 4, "not calibrated")
    given = ("score", "same", "-m", tiny_run, "--budget", "3/day", "--per-day", 100)
    assert fails(mfimage(*given), 4, "not calibrated, which --budget needs")


class Pipe(io.BytesIO):
    """A pipe that gives at once no more than what was written at once."""

    def __init__(self, *pieces):
        super().__init__()
        self.pieces = list(pieces)

    def read1(self, size=-1):
        return self.pieces.pop(0) if self.pieces else b""

    def read(self, size=-1):
        return b"".join(self.pieces)


def test_paths_are_given_as_soon_as_their_line_has_ended():
    groups = arriving_paths(Pipe(b"a.png\nb", b".png\r\nc.png\n", b"d.png"), 8)
    assert list(groups) == [["a.png"], ["b.png", "c.png"], ["d.png"]]
    assert list(arriving_paths(Pipe(b"a\nb\nc\n"), 2)) == [["a", "b"], ["c"]]
    assert list(arriving_paths(Pipe(b"a\nb.png\0", b"c\0"), 8)) == [["a\nb.png"], ["c"]]
    assert list(arriving_paths(Pipe("a\nb\n".encode("utf-16")[:4], "a\nb\n".encode("utf-16")[4:]), 8)) == [
        ["a", "b"]
    ]
    assert list(arriving_paths(Pipe(), 8)) == []


def test_a_folder_is_watched_until_ctrl_c(calibrated, listed, tmp_path):
    """Lines come one by one while the process runs; what is there already is passed over."""
    write_images("in", draw_bumps(2, seed=7))
    process = run_command("score", "--watch", tmp_path / "in", "-m", calibrated, "--jsonl")
    try:
        assert "2 images already there: passed over" in process.stderr.readline()
        for name in ("a.png", "b.png"):
            shutil.copy(tmp_path / "odd" / "0.png", tmp_path / "in" / name)
            row = json.loads(process.stdout.readline())
            assert (row["path"], row["verdict"]) == (f"{tmp_path}/in/{name}", "strange")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, out) == (130, "")
    assert "interrupted after 2 images, 2 strange" in err


def test_a_watch_ends_when_nothing_comes(mfimage, calibrated, listed):
    begun = time.monotonic()
    code, out, err = mfimage("score", "--watch", "same", "-m", calibrated, "--until-idle", "0.3s")
    assert (code, out) == (0, "")
    assert "0 images" in err
    assert time.monotonic() - begun < 60
