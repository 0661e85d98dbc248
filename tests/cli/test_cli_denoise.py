import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import fails, raising
from PIL import Image
from tiny import draw_bumps

from mfimage import denoise, from_pretrained
from mfimage.datasets import gaussian_noise
from mfimage.datasets.decode import Preparation


def write(folder, images):
    Path(folder).mkdir(exist_ok=True)
    for index, image in enumerate(images):
        pixels = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
        Image.fromarray(pixels).save(f"{folder}/{index}.png")


def read(path):
    with Image.open(path) as picture:
        return np.asarray(picture) / 255


def table(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def noisy(mfimage):
    """Folders clean/ and noisy/ of six bumps, σ = 0.2."""
    clean = draw_bumps(6, seed=4) / 255
    noise = gaussian_noise(torch.from_numpy(clean), 0.2, torch.Generator().manual_seed(0))
    write("clean", clean)
    write("noisy", noise.numpy())
    return clean


def psnr(a, b):
    return -10 * np.log10(np.mean((a - b) ** 2))


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
        expected = psnr(read(row["output"]), noisy[i])
        assert float(row["psnr"]) == pytest.approx(expected, abs=0.1)  # the files are rounded
        assert expected > psnr(read(row["path"]), noisy[i]) + 2
        moved = np.linalg.norm(read(row["output"]) - read(row["path"]))
        assert float(row["distance"]) == pytest.approx(moved, abs=0.02)
        assert float(row["score"]) == pytest.approx(image["score"], rel=1e-4)
        assert 0 < float(row["ssim"]) <= 1
    assert read("report/sheet.png").shape == (2 * 10 + 2, 4 * 3 * 10 + 2)  # four groups of three a row
    assert "PSNR" in err
    assert not list(Path("report").glob("*.tmp"))


def test_the_noise_is_estimated_if_not_given(mfimage, tiny_run, noisy):
    out = mfimage("denoise", "noisy", "-m", tiny_run, "-o", "out", "--json")[1]
    assert all(0.02 < image["sigma"] < 0.5 for image in json.loads(out)["images"])
    assert all(image["psnr"] is None for image in json.loads(out)["images"])


def test_paths_come_from_standard_input(mfimage, tiny_run, noisy):
    command = ["denoise", "-m", tiny_run, "-o", "out", "-"]
    assert mfimage(*command, given="noisy/4.png\n\nnoisy/1.png\n")[1] == "out/4.png\nout/1.png\n"
    code, out, err = mfimage(*command, given="\n")
    assert (code, out) == (3, "")
    assert "standard input: no paths" in err


def test_equal_names_are_numbered(mfimage, tiny_run, noisy):
    for flag in ([], ["--tile"]):
        out = mfimage("denoise", "noisy/1.png", "clean/1.png", "-m", tiny_run, "-o", "out", *flag)[1]
        assert out == "out/1.png\nout/1-2.png\n"


def test_what_is_strange_is_named_and_still_done(mfimage, tiny_run, noisy):
    write("strange", [1 - noisy[0], noisy[1], *(1 - noisy)])
    code, out, err = mfimage("denoise", "strange", "-m", tiny_run, "-o", "out", "--report", "r", "-q")
    assert code == 0
    assert len(out.splitlines()) == 8
    lines = err.splitlines()
    assert all("far from what the model was trained on" in line for line in lines[:5])
    assert lines[0].startswith("warning: strange/0.png: ")
    assert lines[5:] == ["warning: and 2 more"]
    assert [bool(row["warning"]) for row in table("r/denoised.csv")] == [i != 1 for i in range(8)]


@pytest.mark.parametrize("sides", [(8, 8), (21, 13)])
def test_large_images_are_treated_in_tiles(mfimage, tiny_run, noisy, sides):
    write("large", [np.pad(noisy[0], ((0, sides[0] - 8), (0, sides[1] - 8)))])
    write("large/more", [noisy[1]])
    command = ["denoise", "large/0.png", "large/more", "-m", tiny_run, "-o", "out", "--tile", "--report", "r"]
    code, _, err = mfimage(*command, "--sigma", 0.1, "--method", "map")
    assert code == 0, err
    assert read("out/0.png").shape == sides
    assert read("out/0-2.png").shape == (8, 8)
    assert len(table("r/denoised.csv")) == 2


def test_a_tile_of_the_whole_image_changes_nothing(mfimage, tiny_run, noisy):
    for method in ("auto", "projection"):
        command = ["denoise", "noisy", "-m", tiny_run, "--method", method, "--json"]
        whole, tiled = (
            json.loads(mfimage(*command, "-o", name, *flag)[1])["images"]
            for name, flag in (("a", []), ("b", ["--tile"]))
        )
        for one, other in zip(whole, tiled, strict=True):
            assert one["method"] == other["method"]
            assert one["sigma"] == pytest.approx(other["sigma"], rel=1e-5)
            np.testing.assert_allclose(read(one["output"]), read(other["output"]), atol=1 / 255 + 1e-9)


def test_a_large_strange_image_is_named(mfimage, tiny_run, noisy):
    light = np.linspace(0, 0.5, 6)[:, None, None]
    write("large", [np.concatenate((1 - noisy) / 2 + light, 1)])
    code, _, err = mfimage("denoise", "large", "-m", tiny_run, "-o", "out", "--tile", "--sigma", 0.02)
    assert code == 0
    assert "large/0.png: far from" in err


def test_tiles_skip_bad_files_and_refuse_small_ones(mfimage, tiny_run, noisy):
    Path("noisy/zero.png").touch()
    command = ["denoise", "noisy", "-m", tiny_run, "-o", "out", "--tile"]
    code, _, err = mfimage(*command)
    assert code == 3
    assert "1 of 7 files cannot be used" in err
    code, out, err = mfimage(*command, "--max-bad", 0.5, "--json")
    assert code == 0
    assert json.loads(out)["skipped"] == [{"path": "noisy/zero.png", "reason": "is empty (0 bytes)"}]
    write("small", [noisy[0][:5]])
    code, _, err = mfimage("denoise", "small", "-m", tiny_run, "--tile")
    assert code == 3
    assert "5 × 8 pixels are less than a tile of 8 × 8" in err


@pytest.mark.parametrize("tile", [[], ["--tile"]])
def test_a_mask_is_filled_in(mfimage, tiny_run, noisy, tile):
    mask = np.zeros((8, 8))
    mask[:, 4:] = 1
    write("mask", [mask])
    write("holes", noisy * (1 - mask))
    command = ["denoise", "holes", "-m", tiny_run, "-o", "out", "--mask", "mask/0.png", "--clean", "clean"]
    code, out, err = mfimage(*command, "--json", *tile)
    assert code == 0, err
    for i, image in enumerate(json.loads(out)["images"]):
        assert (image["method"], image["sigma"], image["warning"]) == ("map", 0, "")
        filled = read(image["output"])
        assert np.array_equal(filled[:, :4], read(f"holes/{i}.png")[:, :4])
        assert image["psnr"] > psnr(read(f"holes/{i}.png"), noisy[i]) + 6


def test_small_images_are_enlarged(mfimage, tiny_run, noisy):
    write("small", noisy.reshape(6, 4, 2, 4, 2).mean((2, 4)))
    command = ["denoise", "small", "-m", tiny_run, "-o", "out", "--super", 2, "--clean", "clean", "--json"]
    code, out, err = mfimage(*command, "--report", "r")
    assert code == 0, err
    for i, image in enumerate(json.loads(out)["images"]):
        large = read(image["output"])
        assert large.shape == (8, 8)
        nearest = np.kron(read(f"small/{i}.png"), np.ones((2, 2)))
        assert image["psnr"] > psnr(nearest, noisy[i]) + 5


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--resize", "--tile"], 2, "--resize and --tile"),
        (["--method", "magic"], 2, '"magic" for --method. Choose from: "auto", "projection"'),
        (["--sigma", "0"], 2, "--sigma 0.0"),
        (["--sigma", "25"], 2, "--sigma 25.0: a deviation above 0 on the scale of [0, 1]"),
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
    write("large", [np.zeros((9, 8))])
    status, out, err = mfimage("denoise", "noisy", "-m", tiny_run, *arguments)
    assert (status, out) == (code, ""), err
    assert words in err
    assert "Traceback" not in err


def test_clean_images_of_another_size_are_refused(mfimage, tiny_run, noisy):
    write("other", [np.zeros((9, 8))] * 6)
    code, _, err = mfimage("denoise", "noisy", "-m", tiny_run, "--clean", "other")
    assert code == 3
    assert "other/0.png: 9 × 8 pixels, but the result has 8 × 8" in err


def test_clean_images_of_another_kind_of_file_are_found(mfimage, tiny_run, noisy):
    Path("bmp").mkdir()
    for i in range(6):
        Image.open(f"clean/{i}.png").save(f"bmp/{i}.bmp")
    out = mfimage("denoise", "noisy", "-m", tiny_run, "--clean", "bmp", "--json")[1]
    again = mfimage("denoise", "noisy", "-m", tiny_run, "--clean", "clean", "--json")[1]
    assert json.loads(out) == json.loads(again)


def test_what_no_method_helps_is_left_as_it_is_and_told(mfimage, tiny_run, noisy):
    write("strange", [1 - noisy[0], noisy[1]])
    code, out, err = mfimage("denoise", "strange", "-m", tiny_run, "-o", "out", "--sigma", 0.001)
    assert (code, len(out.splitlines())) == (0, 2)
    assert "2 images in out, 2 left as they are: at their noise no method of this model helps" in err
    assert "times the limit): it is left as it is" in err
    assert "invented" not in err
    assert np.array_equal(read("out/0.png"), read("strange/0.png"))
    assert "1 image in one\n" in mfimage("denoise", "noisy/1.png", "-m", tiny_run, "-o", "one")[2]


@pytest.fixture
def nested(noisy):
    """Folders n/a, n/b, and clean/a, clean/b, of images of the same names but other content."""
    for folder, images in (("noisy", "n"), ("clean", "originals")):
        for kind, numbers in (("a", (0, 1)), ("b", (2, 3))):
            Path(images, kind).mkdir(parents=True)
            for name, number in enumerate(numbers):
                Path(images, kind, f"{name}.png").write_bytes(Path(folder, f"{number}.png").read_bytes())
    return noisy


@pytest.mark.parametrize(
    "inputs",
    [["n"], ["./n/"], ["n/a", "n/b"], ["n/*/*.png"], ["n/a/0.png", "n/a/1.png", "n/b/0.png", "n/b/1.png"]],
)
def test_clean_images_are_found_by_their_place_in_the_folder(mfimage, tiny_run, nested, inputs):
    if inputs == ["n/a", "n/b"]:  # each is a folder of its own: both have a 0.png
        code, _, err = mfimage("denoise", *inputs, "-m", tiny_run, "-o", "out", "--clean", "clean")
        assert (code, "would be the clean image of both" in err) == (3, True)
        return
    code, out, err = mfimage(
        "denoise", *inputs, "-m", tiny_run, "-o", "out", "--clean", "originals", "--json"
    )
    assert code == 0, err
    for i, image in enumerate(json.loads(out)["images"]):
        assert image["psnr"] == pytest.approx(psnr(read(image["output"]), nested[i]), abs=0.1)


def test_no_two_images_are_measured_against_one(mfimage, tiny_run, nested):
    code, _, err = mfimage("denoise", "n", "-m", tiny_run, "-o", "out", "--clean", "clean")
    assert code == 3
    assert (
        "clean/0.png: would be the clean image of both n/a/0.png and n/b/0.png: put the clean images" in err
    )
    assert not Path("out").exists()
    for folder in ("n/a", "n/b"):  # one after the other it may be
        assert mfimage("denoise", folder, "-m", tiny_run, "-o", "out", "--clean", "clean", "-q")[0] == 0


def test_what_is_not_read_and_what_loses_its_colour_is_said(mfimage, tiny_run, noisy):
    Path("noisy/x.avif").touch()
    Image.open("noisy/0.png").convert("RGB").save("noisy/0.png")
    for tile in ([], ["--tile"]):
        code, out, err = mfimage(
            "denoise", "noisy", "-m", tiny_run, "-o", "out", "--max-bad", 0, "--json", *tile
        )
        assert code == 0
        assert [bad["path"] for bad in json.loads(out)["skipped"]] == ["noisy/x.avif"]
        assert "note: 1 of 6 images lose their colour" in err
        assert "noisy/x.avif: AVIF is not a format that mfimage reads" in err


def test_depth_and_noise_of_files_are_kept(mfimage, tiny_run, noisy):
    """16 bits stay 16 bits, and what noise put beyond black and white is not cut before it is removed."""
    deep = np.rint(noisy[0] * 65535).astype(np.uint16)
    floats = (noisy[1] + 0.3 * np.random.default_rng(0).normal(size=(8, 8))).astype(np.float32)
    assert floats.min() < -0.1
    Path("deep").mkdir()
    Image.fromarray(deep).save("deep/a.png")
    Image.fromarray(floats).save("deep/b.tif")
    write("deep", noisy[:1])
    for flag in ([], ["--tile"], ["--resize"]):
        command = ["denoise", "deep", "-m", tiny_run, "-o", "out", "--method", "projection", *flag]
        code, _, err = mfimage(*command)
        assert code == 0, err
        model = from_pretrained(tiny_run)
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
