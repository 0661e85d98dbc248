"""What fails when the work is done loses none of it: the result is told first."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from commands import fails, raising, table
from tiny import draw_bumps, write_images

from mfimage.denoising.restorer import Restorer


def test_an_image_too_small_for_tiles_is_skipped_and_listed(mfimage, tiny_run):
    write_images("some", [np.zeros(size, np.uint8) for size in ((9, 12), (8, 7), (8, 8))])
    command = ["denoise", "some", "--tile", "-m", tiny_run, "-o", "out"]
    code, out, err = mfimage(*command, "--max-bad", 0.5)
    assert (code, out) == (0, "out/0.png\nout/2.png\n")
    assert "  some/1.png: 8 × 7 pixels are less than a tile of 8 × 8; --resize scales it" in err
    code, out, err = mfimage(*command)  # one of three is more than may be bad
    assert (code, out) == (3, "out/0.png\nout/2.png\n")
    assert "some/1.png" in err
    assert sorted(os.listdir("out")) == ["0.png", "2.png"]


def test_a_mask_of_another_size_than_a_large_image_skips_it(mfimage, tiny_run):
    write_images("some", [np.zeros(size, np.uint8) for size in ((9, 12), (12, 9), (9, 12))])
    write_images("mask", [np.zeros((9, 12), np.uint8)])
    command = ["denoise", "some", "--tile", "-m", tiny_run, "-o", "out", "--mask", "mask/0.png"]
    code, out, err = mfimage(*command, "--max-bad", 0.5)
    assert (code, out) == (0, "out/0.png\nout/2.png\n")
    assert "some/1.png: 12 × 9 pixels, but the mask has 9 × 12" in err


@pytest.mark.parametrize("tile", [[], ["--tile"]])
def test_a_damaged_clean_image_does_not_lose_the_results(mfimage, tiny_run, tile):
    write_images("noisy", draw_bumps(3))
    write_images("clean", draw_bumps(3, seed=1))
    Path("clean/1.png").write_bytes(b"no image")
    command = ["denoise", "noisy", "-m", tiny_run, "-o", "out", "--clean", "clean", "--json"]
    code, out, err = mfimage(*command, *tile)
    images = json.loads(out)["images"]
    assert code == 3
    assert "clean/1.png: is not an image" in err
    assert [image["output"] for image in images] == [f"out/{i}.png" for i in range(3)]
    measured = [image["psnr"] is not None for image in images]
    assert measured == ([True, False, True] if tile else [False] * 3)


def test_a_table_that_cannot_be_written_does_not_lose_the_results(mfimage, tiny_run, monkeypatch):
    write_images("noisy", draw_bumps(2))
    monkeypatch.setattr("mfimage.files.write_csv", raising(OSError(errno.ENOSPC, "No space left", "t.csv")))
    for verb in (["denoise", "-o", "out", "--report", "r"], ["score", "--csv", "t.csv"]):
        code, out, err = mfimage(verb[0], "noisy", "-m", tiny_run, *verb[1:])
        assert code == 6, err
        assert len(out.splitlines()) == 2
        assert "mfimage: t.csv: No space left" in err


def test_thin_images_are_measured_as_far_as_they_can_be(mfimage, tiny_run, monkeypatch):
    write_images("noisy", draw_bumps(2))
    write_images("clean", draw_bumps(2, seed=1))
    monkeypatch.setattr("mfimage.denoising.told.LEAST_SIDE", 9)
    code, out, err = mfimage("denoise", "noisy", "-m", tiny_run, "-o", "out", "--clean", "clean", "--json")
    assert code == 0, err
    assert all(image["psnr"] is not None and image["ssim"] is None for image in json.loads(out)["images"])
    assert "SSIM" not in err


def test_a_page_that_fails_does_not_lose_an_evaluation(mfimage, tiny_run, bumps, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("mfimage.eval.evaluation.page_of", raising(ValueError("no page")))
    command = ["evaluate", bumps, "-m", tiny_run, "-o", "out", "--metrics", "reconstruction", "--json"]
    code, out, err = mfimage(*command)
    assert code == 1
    assert json.loads(out) == json.loads(Path("out/metrics.json").read_text())
    assert "no page" in err


def test_out_of_memory_advises_what_the_verb_has(mfimage, tiny_run, monkeypatch):
    monkeypatch.setattr("mfimage.pretrained.from_pretrained", raising(MemoryError()))
    write_images("noisy", draw_bumps(2))
    told = {
        verb: mfimage(verb, *more, "-m", tiny_run)
        for verb, more in (("sample", []), ("interpolate", ["noisy/0.png", "noisy/1.png"]))
    }
    assert told["sample"][::2] == (6, "mfimage: out of memory: lower --batch-size (MemoryError)\n")
    assert told["interpolate"][::2] == (6, "mfimage: out of memory (MemoryError)\n")


def test_a_list_of_results_is_whole_in_the_table(mfimage, tiny_run):
    write_images("noisy", draw_bumps(3))
    assert mfimage("denoise", "noisy", "-m", tiny_run, "-o", "out", "--report", "r", "-q")[0] == 0
    assert [row["output"] for row in table("r/denoised.csv")] == [f"out/{i}.png" for i in range(3)]


def test_an_interruption_tells_which_results_are_there(mfimage, tiny_run, monkeypatch):
    write_images("noisy", draw_bumps(6))
    monkeypatch.setattr("mfimage.denoising.image_files.AT_ONCE", 2)
    restore, batches = Restorer.__call__, []

    def stopped(self, *arguments):
        batches.append(1)
        if len(batches) > 2:
            raise KeyboardInterrupt
        return restore(self, *arguments)

    monkeypatch.setattr(Restorer, "__call__", stopped)
    result = mfimage("denoise", "noisy", "-m", tiny_run, "-o", "out", "--report", "r")
    assert fails(result, 130, "mfimage: interrupted: 4 of 6 images are in out, and no report")
    assert sorted(os.listdir("out")) == [f"{i}.png" for i in range(4)]
    assert not Path("r/denoised.csv").exists()
