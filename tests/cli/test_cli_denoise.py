"""The verb denoise, as typed."""

import json
import os
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from commands import fails, pixels_of, psnr, raising, table
from PIL import Image
from tiny import write_images

from mfimage import denoise
from mfimage.cli.options import Talk
from mfimage.datasets.decode import Preparation
from mfimage.denoising import image_files


@pytest.mark.parametrize("method", ["auto", "projection", "map"])
def test_a_report_has_the_numbers_and_the_pictures(mfimage, tiny_run, noisy, method):
    command = ["denoise", "noisy", "-m", tiny_run, "-o", "out", "--method", method, "--sigma", 0.2]
    code, out, err = mfimage(*command, "--clean", "clean", "--report", "report", "--json")
    assert code == 0, err
    rows, images = table("report/denoised.csv"), json.loads(out)["images"]
    assert [row["path"] for row in rows] == [f"noisy/{i}.png" for i in range(6)]
    assert sorted(os.listdir("out")) == [f"{i}.png" for i in range(6)]
    for i, (row, image) in enumerate(zip(rows, images, strict=True)):
        assert (image["input"], image["output"]) == (row["path"], row["output"])
        assert float(row["sigma"]) == pytest.approx(0.2)
        assert row["warning"] == ""
        before, after = pixels_of(row["path"]), pixels_of(row["output"])
        assert float(row["psnr"]) == pytest.approx(psnr(after, noisy[i]), abs=0.1)  # the files are rounded
        assert psnr(after, noisy[i]) > psnr(before, noisy[i]) + 2
        assert float(row["distance"]) == pytest.approx(np.linalg.norm(after - before), abs=0.02)
        assert float(row["score"]) == pytest.approx(image["score"], rel=1e-4)
        assert 0 < float(row["ssim"]) <= 1
        assert float(row["psnr_before"]) == pytest.approx(psnr(before, noisy[i]), abs=1e-3)
        assert float(row["change"]) == pytest.approx(np.sqrt(np.mean((after - before) ** 2)), abs=3e-3)
        assert (row["white"], row["same"]) == ("255", "False")
        assert (
            f"  {row['path']}  σ 0.2 (51/255)  {row['method']}: changed by {float(row['change']):.2g} ("
            in err
        )
    sheet = pixels_of("report/sheet.png")  # under names four groups of three a row, six times as large
    assert sheet.shape == (18 + 2 * 50 + 2, 4 * 3 * 50 + 2)
    assert all((sheet[:18, 2 + 50 * i : 52 + 50 * i] < 0.5).sum() > 50 for i in range(12))
    np.testing.assert_allclose(sheet[20:68:6, 102:150:6], noisy[0], atol=1e-6)
    gained, given = np.mean([[float(row[key]) for row in rows] for key in ("psnr", "psnr_before")], 1)
    assert (
        f"PSNR {gained:.2f} dB ({gained - given:.2f} dB above the {given:.2f} dB of the input), SSIM" in err
    )
    assert not list(Path("report").glob("*.tmp"))


def test_the_noise_is_estimated_if_not_given(denoised, noisy):
    images = denoised("noisy")
    assert all(0.02 < image["sigma"] < 0.5 for image in images)
    assert all(image["psnr"] is None for image in images)


def test_noise_of_another_kind_is_named_and_told(mfimage, tiny_run, noisy):
    command = ["denoise", "noisy", "-m", tiny_run, "-o", "out", "--report", "r", "--json"]
    for flag in ([], ["--tile"]):
        code, out, err = mfimage(*command, *flag, "--noise", "poisson-gaussian:30,0.02")
        assert code == 0, err
        assert "noise: poisson-gaussian:30,0.02 in 6 images" in err
        images = json.loads(out)["images"]
        assert {image["noise"] for image in images} == {"poisson-gaussian:30,0.02"}
        assert {row["noise"] for row in table("r/denoised.csv")} == {"poisson-gaussian:30,0.02"}
        mean = pixels_of("noisy/0.png").mean()
        assert images[0]["sigma"] == pytest.approx((mean / 30 + 0.02**2) ** 0.5, rel=0.05)
    code, out, err = mfimage(*command)
    assert all(image["noise"].startswith("gaussian:0.") for image in json.loads(out)["images"])
    assert "noise:" not in err


def test_paths_come_from_standard_input(mfimage, tiny_run, noisy):
    command = ["denoise", "-m", tiny_run, "-o", "out", "-"]
    assert mfimage(*command, given="noisy/4.png\n\nnoisy/1.png\n")[1] == "out/4.png\nout/1.png\n"
    assert fails(mfimage(*command, given="\n"), 3, "standard input: no paths")


def test_equal_names_are_numbered(mfimage, tiny_run, noisy):
    for flag in ([], ["--tile"]):
        out = mfimage("denoise", "noisy/1.png", "clean/1.png", "-m", tiny_run, "-o", "out", *flag)[1]
        assert out == "out/1.png\nout/1-2.png\n"


def test_what_is_strange_is_named_and_still_done(mfimage, tiny_run, noisy):
    write_images("strange", [1 - noisy[0], noisy[1], *(1 - noisy)])
    code, out, err = mfimage("denoise", "strange", "-m", tiny_run, "-o", "out", "--report", "r", "-q")
    assert code == 0
    assert len(out.splitlines()) == 8
    lines = err.splitlines()
    assert all("far from what the model was trained on" in line for line in lines[:5])
    assert lines[0].startswith("warning: strange/0.png: ")
    assert lines[5:] == ["warning: and 2 more"]
    assert [bool(row["warning"]) for row in table("r/denoised.csv")] == [i != 1 for i in range(8)]


def test_what_no_method_helps_is_left_as_it_is_and_told(mfimage, tiny_run, noisy):
    write_images("strange", [1 - noisy[0], noisy[1]])
    code, out, err = mfimage("denoise", "strange", "-m", tiny_run, "-o", "out", "--sigma", 0.001)
    assert (code, len(out.splitlines())) == (0, 2)
    assert "2 images in out, 2 left as they are\n" in err
    assert "  strange/1.png  left as it is: at σ = 0.001 no method of this model makes it better\n" in err
    assert "times the limit): it is left as it is" in err
    assert "invented" not in err
    assert np.array_equal(pixels_of("out/0.png"), pixels_of("strange/0.png"))
    assert "1 image in one\n" in mfimage("denoise", "noisy/1.png", "-m", tiny_run, "-o", "one")[2]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--resize", "--tile"], 2, "--resize and --tile"),
        (["--method", "magic"], 2, '"magic" for --method. Choose from: "auto", "projection"'),
        (["--sigma", "0"], 2, "--sigma: 0: a deviation above 0"),
        (["--sigma", "25/0"], 2, "--sigma: 25/0: a deviation above 0, white being 1, as 0.1 or 25/255"),
        (["--sigma", "50"], 2, "expected; of 8-bit values write 50/255"),
        (["--sigma", "300/255"], 2, "--sigma: 300/255: a deviation above 0"),
        (["--noise", "poisson"], 2, "poisson:PEAK is expected"),
        (["--noise", "poisson:10-100"], 2, "one number is needed, not a range"),
        (["--noise", "poisson:30", "--sigma", "0.1"], 2, "--noise goes with neither --sigma"),
        (["--method", "soft"], 4, "noise"),
        (["--super", "3"], 2, "must divide both sides"),
        (["--super", "2"], 3, "8 × 8 pixels, but the model takes 4 × 4"),
        (["--super", "2", "--tile"], 2, "--super goes with neither"),
        (["--mask", "noisy/0.png", "--method", "projection"], 2, "--method map only"),
        (["--mask", "none.png"], 3, "none.png"),
        (["--mask", "large/0.png"], 3, "a mask of 9 × 8 pixels"),
        (["--clean", "nowhere"], 3, "nowhere: no such folder"),
        (["--clean", "large"], 3, "large: holds no clean images of the name of noisy/1.png"),
        (["-o", "clean", "--clean", "clean"], 2, "would be overwritten"),
    ],
)
def test_wrong_requests_say_what_is_wrong(mfimage, tiny_run, noisy, arguments, code, words):
    write_images("large", [np.zeros((9, 8))])
    assert fails(mfimage("denoise", "noisy", "-m", tiny_run, *arguments), code, words)


def test_what_is_not_read_and_what_loses_its_colour_is_said(mfimage, tiny_run, noisy):
    Path("noisy/x.avif").touch()
    Image.open("noisy/0.png").convert("RGB").save("noisy/0.png")
    command = ["denoise", "noisy", "-m", tiny_run, "-o", "out", "--max-bad", 0, "--json"]
    for tile in ([], ["--tile"]):
        code, out, err = mfimage(*command, *tile)
        assert code == 0
        assert [bad["path"] for bad in json.loads(out)["skipped"]] == ["noisy/x.avif"]
        assert "note: 1 of 6 images lose their colour" in err
        assert "noisy/x.avif: AVIF is not a format that mfimage reads" in err


def test_depth_and_noise_of_files_are_kept(denoised, model, noisy):
    """16 bits stay 16 bits, and what noise put beyond black and white is not cut before it is removed."""
    deep = np.rint(noisy[0] * 65535).astype(np.uint16)
    floats = (noisy[1] + 0.3 * np.random.default_rng(0).normal(size=(8, 8))).astype(np.float32)
    assert floats.min() < -0.1
    write_images("deep", noisy[:1])
    Image.fromarray(deep).save("deep/a.png")
    Image.fromarray(floats).save("deep/b.tif")
    for flag in ([], ["--tile"], ["--resize"]):
        denoised("deep", "--method", "projection", *flag)
        with Image.open("out/a.png") as a, Image.open("out/b.png") as b, Image.open("out/0.png") as c:
            assert (a.mode, b.mode, c.mode) == ("I;16", "I;16", "L")
            clean = denoise(deep, model, method="projection")
            assert np.abs(np.asarray(a).astype(int) - clean).max() <= 1
            clean = denoise(floats, model, method="projection")
            np.testing.assert_allclose(np.asarray(b) / 65535, clean, atol=2e-5)


def test_images_that_are_all_of_another_size_are_refused_before_they_are_read(mfimage, tiny_run, monkeypatch):
    os.mkdir("large")
    for i in range(5):
        Image.new("L", (20, 30)).save(f"large/{i}.png")
    monkeypatch.setattr(Preparation, "__call__", raising(AssertionError("it was read")))
    command = ("denoise", "large", "-m", tiny_run, "-o", "clean")
    assert fails(mfimage(*command), 3, "large/0.png: 30 × 20 pixels", "8 × 8", "--resize", "--tile")


@pytest.mark.parametrize("tile", [[], ["--tile"]])
def test_maps_of_uncertainty_lie_beside(mfimage, tiny_run, model, noisy, tile):
    command = ["denoise", "noisy", "-m", tiny_run, "-o", "out", "--sigma", 0.2, "--uncertainty", "maps"]
    assert mfimage(*command, *tile)[0] == 0
    assert sorted(os.listdir("maps")) == [f"{i}.tiff" for i in range(6)]
    for i in range(6):
        image = pixels_of(f"noisy/{i}.png").astype(np.float32)
        _, expected = denoise(image, model, 0.2, uncertainty=True)
        with Image.open(f"maps/{i}.tiff") as found:
            assert found.mode == "F"
            np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-4)


def test_uncertainty_is_refused_where_there_is_none(mfimage, tiny_run, noisy):
    command = ["denoise", "noisy", "-m", tiny_run, "-o", "out", "--uncertainty", "maps"]
    assert fails(mfimage(*command, "--method", "map"), 4, "method map", "choose from auto, projection")
    assert fails(mfimage(*command, "--super", 2), 2, "--uncertainty goes with neither")


@pytest.mark.parametrize(("flags", "what", "total"), [([], "images", 6), (["--tile"], "tiles", 5 + 2 + 6)])
def test_progress_is_told_in_images_or_tiles(mfimage, tiny_run, noisy, monkeypatch, flags, what, total):
    if flags:
        write_images("noisy", [np.pad(noisy[0], ((0, 0), (0, 4)))])  # 8 × 12: two tiles
        write_images("noisy/more", [np.pad(noisy[0], ((0, 2), (0, 8)))])  # 10 × 16: two times three
    told = []

    @contextmanager
    def progress(talk, what, total):
        yield lambda done: told.append((what, done, total))

    monkeypatch.setattr(Talk, "progress", progress)
    monkeypatch.setattr(image_files, "AT_ONCE", 2)
    assert mfimage("denoise", "noisy", "-m", tiny_run, "-o", "out", *flags)[0] == 0
    assert (told[0], told[-1]) == ((what, 0, total), (what, total, total))
    assert len(told) == (1 + 7 if flags else 1 + 3)
