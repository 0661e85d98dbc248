"""Where the verbs write: never over what they read, one at a time, and told at once where it cannot be."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import fails, raising
from PIL import Image
from tiny import ONE_THREAD, changed_at, contents, draw_bumps

HOLDER = """
import sys, time
from contextlib import ExitStack
from mfimage.outputs import owned
with ExitStack() as stack:
    for folder in sys.argv[1:]:
        stack.enter_context(owned(folder))
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def calibrated(tiny_run, tmp_path_factory):
    from mfimage import Detector, from_pretrained, load

    place = tmp_path_factory.mktemp("calibrated")
    run = shutil.copytree(tiny_run, place / "run")
    np.save(place / "fresh.npy", draw_bumps(300, seed=11))
    Detector(from_pretrained(run)).calibrate(load(place / "fresh.npy", "all"), 0.05, maps=True).save(
        run / "model"
    )
    return run


@pytest.fixture
def files(mfimage, calibrated):
    """Folders a and b of images, and a model, where the command runs."""
    names = ("0", "1", "step-00", "sheet", "directions", "dimension")
    for folder in ("a", "b"):
        Path(folder).mkdir()
        for name, image in zip(names, draw_bumps(len(names), seed=5), strict=True):
            Image.fromarray(image).save(f"{folder}/{name}.png")
    os.symlink("a/0.png", "link.png")
    Path("links").mkdir()
    for name in (*names, "7"):
        os.symlink(f"../a/{name}.png", f"links/{name}.png")
    shutil.copytree(calibrated, "run")
    return contents(".")


@pytest.mark.parametrize(
    "line",
    [
        "score a/0.png a/1.png -m run --heatmaps a",
        "score a/*.png -m run --heatmaps a",
        "score a -m run --csv a/0.png",
        "score link.png -m run --csv a/0.png",
        "score a/0.png -m run --csv link.png",
        "score a -m run --report a/0.png",
        "score a/0.png -m run --ood a/1.png --report a/1.png",
        "score a -m run --csv run/model/model.safetensors",
        "score a -m run --report run/model/calibration.json",
        "score links/*.png -m run --heatmaps a",
        "score links -m run --heatmaps a --max-bad 0.5",
        "score links -m run --csv a/0.png",
        "denoise links -m run -o a --max-bad 0.5",
        "directions links -m run -o a",
        "dimension links -o a",
        "interpolate a/step-00.png a/1.png -m run -o a",
        "interpolate a/1.png a/sheet.png -m run -o a",
        "denoise a -m run -o a",
        "denoise a -m run -o out --report a",
        "denoise a/1.png --clean b -m run -o b",
        "denoise a/1.png --mask b/1.png -m run -o b",
        "directions a -m run -o a",
        "dimension a -o a",
    ],
)
def test_no_verb_writes_over_what_it_reads(mfimage, files, line):
    assert fails(mfimage(*line.split()), 2, "would be overwritten")
    assert contents(".") == files
    assert not Path("out").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "calibration.json"])
@pytest.mark.parametrize("option", ["--csv", "--report"])
def test_a_file_of_the_model_is_refused_before_it_is_read(mfimage, files, monkeypatch, option, name):
    monkeypatch.setattr("mfimage.pretrained.from_pretrained", raising(AssertionError("it is read")))
    assert fails(mfimage("score", "a", "-m", "run", option, f"run/model/{name}"), 2, "would be overwritten")
    assert contents(".") == files


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("train a -o a -q", "a: lies in a, whose images are read"),
        ("train a -o a/deep/run -q", "a/deep/run: lies in a, whose images are read"),
        ("pack a a", "is what is read"),
        ("score a -m run --csv x --report x", "two results would be written here"),
        ("score a -m run --csv a", "a: is a folder"),
        ("compare run comparison --data a", "two results would be written here"),
        ("score a -m run --csv /dev/null", "a device or a pipe"),
        ("score a -m run --ood none --report x.html", "none: no such file or folder"),
    ],
)
def test_places_that_make_no_sense_are_refused_before_any_work(mfimage, files, line, words):
    code, out, err = mfimage(*line.split())
    assert (code, out) in {(2, ""), (3, "")}
    assert words in err
    assert contents(".") == files


def test_a_result_called_like_the_sheet_beside_it_gets_another_name(mfimage, files):
    assert mfimage("denoise", "a/sheet.png", "a/0.png", "-m", "run", "-o", "out", "--report", "out")[0] == 0
    assert sorted(os.listdir("out")) == ["0.png", "compare.html", "denoised.csv", "sheet-2.png", "sheet.png"]


@pytest.fixture(scope="module")
def busy(calibrated, tmp_path_factory):
    """A folder, and a run, in which another process writes."""
    place = tmp_path_factory.mktemp("busy")
    shutil.copytree(calibrated, place / "run")
    (place / "file").write_text("a file")
    command = [sys.executable, "-c", HOLDER, place / "out", place / "run", place / "run" / "model"]
    process = subprocess.Popen(command, env=ONE_THREAD, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield place
    process.kill()
    process.communicate()


INTO = [
    "sample -m run -o OUT",
    "denoise a -m run -o OUT",
    "denoise a -m run -o new --report OUT",
    "score a -m run --heatmaps OUT",
    "directions a -m run -o OUT",
    "interpolate a/0.png a/1.png -m run -o OUT",
    "dimension a -o OUT",
    "train a -o OUT -q",
    "pack a OUT",
    "stylegan manifold seeded -o OUT",
    "evaluate run a -o OUT",
    "compare run -o OUT",
    "demo -o OUT",
    "reproduce circle -o OUT",
]


@pytest.mark.parametrize(
    "line", [*INTO, "train a -o RUN --resume -q", "evaluate RUN a", "calibrate a -m RUN"]
)
def test_a_folder_in_which_another_process_writes_is_refused_at_once(mfimage, files, busy, line):
    line = line.replace("OUT", str(busy / "out")).replace("RUN", str(busy / "run"))
    before = changed_at(busy)
    assert fails(mfimage(*line.split()), 2, "process ", ", since 20", "is writing there")
    assert changed_at(busy) == before
    assert contents(".") == files


@pytest.mark.parametrize("line", INTO)
def test_a_file_where_a_folder_is_needed_is_told_at_once(mfimage, files, busy, line):
    line = line.replace("OUT", str(busy / "file" / "out"))
    assert fails(mfimage(*line.split()), 2, "a folder is needed")
    assert contents(".") == files
