import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import fails, size_of, table
from PIL import Image
from tiny import draw_bumps, write_images

from mfimage import ManifoldFlow
from mfimage.ood.statistics import UNSOUND


@pytest.fixture
def run(mfimage, tiny_run, tmp_path):
    """A calibrated copy of the tiny run, beside folders of familiar and of strange images."""
    shutil.copytree(tiny_run, tmp_path / "run")
    np.save(tmp_path / "fresh.npy", draw_bumps(400, seed=11))
    code, out, err = mfimage("calibrate", "fresh.npy", "-m", "run", "--alpha", 0.02, "--split", "all")
    assert code == 0, err
    assert out.strip() == "run/model/calibration.json"
    assert "of familiar images" in err
    assert "will be called strange (with 95 % probability)" in err
    write_images(tmp_path / "same", draw_bumps(30, seed=5))
    write_images(tmp_path / "odd", np.full((6, 8, 8), 90, np.uint8))
    return "run"


def test_csv_json_lines_and_text_say_the_same(mfimage, run, tmp_path):
    (tmp_path / "odd" / "broken.png").write_bytes(b"no image")
    given = ["score", "same", "odd/*.png", "-m", run, "--max-bad", 0.5]
    code, out, err = mfimage(*given, "--jsonl", "--csv", "out.csv")
    assert code == 0
    assert "1 file skipped" in err
    assert "broken.png" in err
    rows = [json.loads(line) for line in out.splitlines()]
    assert len(rows) == 36
    written = table("out.csv")
    ways = ["p_far_out", "p_ordinary"]
    assert list(written[0]) == ["path", "score", "p_value", *ways, "verdict", "reason", "sentence"]
    assert [row["path"] for row in written] == [row["path"] for row in rows]
    assert all(row["verdict"] == "strange" and row["reason"] for row in rows[30:])
    assert all(row["p_value"] <= 0.02 for row in rows[30:])
    assert sum(row["verdict"] == "strange" for row in rows[:30]) <= 5
    assert all(row["sentence"].startswith(row["verdict"]) for row in rows)
    assert len(mfimage(*given)[1].splitlines()[0].split("\t")) == 8


def test_fail_on_ood_exits_10(mfimage, run):
    assert mfimage("score", "odd", "-m", run, "--fail-on-ood")[0] == 10
    assert mfimage("score", "odd", "-m", run)[0] == 0


def test_batch_tells_a_shifted_set(mfimage, run):
    same = json.loads(mfimage("score", "same", "-m", run, "--batch", "--json")[1])["drift"]
    odd = json.loads(mfimage("score", "odd", "-m", run, "--batch", "--json")[1])["drift"]
    assert (same["shifted"], odd["shifted"]) == (False, True)
    assert "shifted in" in mfimage("score", "odd", "-m", run, "--batch")[2]


def test_heatmaps_are_written(mfimage, run, tmp_path):
    assert mfimage("score", "same", "-m", run, "--heatmaps", "heat")[0] == 0
    assert len(list((tmp_path / "heat").glob("*.png"))) == 90
    for ending in ("", "-mask", "-repaired"):
        assert np.asarray(Image.open(tmp_path / "heat" / f"0{ending}.png")).shape == (8, 8)
    assert set(np.unique(Image.open(tmp_path / "heat" / "0-mask.png"))) <= {0, 255}


def test_the_page_shows_curves_against_what_is_known_to_be_strange(mfimage, run, tmp_path):
    code, _, err = mfimage("score", "same", "-m", run, "--report", "page.html", "--ood", "odd", "--batch")
    assert code == 0
    assert "page.html: the page" in err
    page = (tmp_path / "page.html").read_text()
    assert 'id="against-images-known-to-be-strange"' in page
    assert "AUROC" in page
    assert 'alt="3 pictures"' in page  # outlined, its map, repaired
    assert "flagged at α = 5.0%" in page
    assert "will be called strange (with 95 % probability)" in page
    assert mfimage("score", "same", "-m", run, "--ood", "odd")[0] == 2


def test_where_an_image_is_strange_is_in_the_table(mfimage, run, tmp_path):
    spoiled = draw_bumps(30, seed=5)
    spoiled[7, 5:, :3] = 255
    write_images(tmp_path / "same", spoiled)
    code, out, _ = mfimage("score", "same", "-m", run, "--heatmaps", "heat", "--csv", "out.csv", "--json")
    assert code == 0
    rows = table("out.csv")
    assert {row["heatmap"] for row in rows} == {f"heat/{i}.png" for i in range(30)}
    assert rows[7]["mask"] == "heat/7-mask.png"
    assert rows[7]["repaired"] == "heat/7-repaired.png"
    boxes = [row["boxes"] for row in json.loads(out)["scores"]]
    assert [json.loads(row["boxes"]) for row in rows] == boxes
    left, top, right, bottom = boxes[7][0]
    assert left < 3
    assert bottom == 8
    mask = np.asarray(Image.open(tmp_path / rows[7]["mask"]))
    assert mask[top:bottom, left:right].any()
    assert sum(map(bool, boxes)) < 8


def test_large_pictures_get_one_map(mfimage, run, tmp_path):
    picture = np.zeros((20, 29), np.uint8)
    picture[10:20, 16:26] = np.random.default_rng(0).integers(0, 256, (10, 10))
    write_images(tmp_path / "large", [picture, picture[:9, :9]])
    given = ["score", "large", "-m", run, "--tiles"]
    code, out, err = mfimage(*given, "--heatmaps", "heat", "--json")
    assert code == 0, err
    first, second = json.loads(out)["scores"]
    assert first["verdict"] == "strange"
    assert first["boxes"]
    assert first["score"] >= second["score"] * (1 - 1e-9)  # of the same window, in another batch
    assert size_of(first["heatmap"]) == size_of(first["repaired"]) == (29, 20)
    assert fails(mfimage(*given, "--batch"), 2, "--tiles goes with none of")
    assert fails(
        mfimage("score", "large", "-m", run, "--tiles", "--max-bad", "0", "same/0.png", "none.png"),
        3,
        "none.png",
    )


def test_a_calibration_without_maps_says_so(mfimage, run, tmp_path):
    path = tmp_path / "run" / "model" / "calibration.json"
    sections = json.loads(path.read_text())
    del sections["detector"]["maps"]
    path.write_text(json.dumps(sections))
    assert fails(
        mfimage("score", "odd", "-m", run, "--heatmaps", "heat"), 4, "without maps", "mfimage calibrate"
    )
    code, _, err = mfimage("score", "odd", "-m", run, "--report", "page.html")
    assert code == 0
    assert "the page has none" in err


def sane(x):
    """Whether images are not those of the folder `odd`, as numbers to divide by."""
    return (x.flatten(1).amax(1, keepdim=True) != 90 / 255).float()


@pytest.mark.parametrize("calibrated", [True, False])
def test_an_infinite_score_says_why(mfimage, tiny_run, run, monkeypatch, calibrated):
    encode = ManifoldFlow.encode
    monkeypatch.setattr(ManifoldFlow, "encode", lambda flow, x, *theta: encode(flow, x, *theta) / sane(x))
    given = ["score", "same/0.png", "odd/0.png", "-m", run if calibrated else tiny_run]
    lines = [line.split("\t") for line in mfimage(*given)[1].splitlines()]
    assert [line[1] == "inf" for line in lines] == [False, True]
    assert [line[6 if calibrated else -1] for line in lines] == ["", UNSOUND]
    rows = json.loads(mfimage(*given, "--json", "--csv", "out.csv")[1])["scores"]
    assert [(row["score"] is None, row["reason"]) for row in rows] == [(False, ""), (True, UNSOUND)]
    assert [row["reason"] for row in table("out.csv")] == ["", UNSOUND]


@pytest.mark.parametrize("kind", ["density", "joint", "neighbours", "local-dimension", "complexity"])
def test_every_score_can_be_calibrated(mfimage, run, kind):
    given = ("calibrate", "fresh.npy", "-m", run, "--score", kind, "--split", "all", "--alpha", 0.05)
    assert mfimage(*given)[0] == 0
    rows = json.loads(mfimage("score", "same", "-m", run, "--json")[1])["scores"]
    assert sum(row["verdict"] == "strange" for row in rows) <= 6


def test_too_few_images_and_no_calibration_are_told(mfimage, tiny_run, run):
    few = mfimage("calibrate", "fresh.npy", "-m", run, "--alpha", 0.001, "--split", "all")
    assert fails(few, 2, "999 are needed")
    assert mfimage("score", "odd", "-m", tiny_run, "--fail-on-ood")[0] == 4
    assert len(mfimage("score", "odd", "-m", tiny_run)[1].splitlines()[0].split("\t")) == 2


def test_a_calibration_of_other_weights_is_refused(mfimage, run, tmp_path):
    path = tmp_path / "run" / "model" / "calibration.json"
    sections = json.loads(path.read_text())
    sections["detector"]["model"] = "0" * 64
    path.write_text(json.dumps(sections))
    assert fails(mfimage("score", "odd", "-m", run), 4, "another model")


@pytest.mark.parametrize("verb", [("score",), ("denoise", "-o", "out")])
def test_a_file_that_is_not_there_is_listed_like_a_bad_one_in_a_folder(verb, mfimage, tiny_run):
    names = [f"{i}.png" for i in range(60)]
    write_images(".", draw_bumps(60, seed=3))
    Path("dead.png").symlink_to("nowhere.png")
    code, out, err = mfimage(*verb, "dead.png", *names, "gone.png", "-m", tiny_run, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert len(found["scores" if verb[0] == "score" else "images"]) == 60
    assert [one["path"] for one in found["skipped"]] == ["dead.png", "gone.png"]
    assert {one["reason"] for one in found["skipped"]} == {"cannot be read: No such file or directory"}
    assert "dead.png" in err
    assert fails(mfimage(*verb, "dead.png", *names[:9], "-m", tiny_run), 3, "1 of 10 files", "dead.png")
    assert fails(mfimage(*verb, "gone.png", "-m", tiny_run), 3, "gone.png: no such file or folder")


def test_a_model_that_never_saw_noise_refuses_to_be_told_of_it(mfimage, run):
    assert fails(mfimage("score", "same", "-m", run, "--sigma", "25/255"), 4, "not trained with noise")
