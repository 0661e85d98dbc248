"""Large images in tiles, holes that are filled in, and small images that are enlarged."""

import json
from pathlib import Path

import numpy as np
import pytest
from commands import fails, pixels_of, psnr, table
from tiny import write_images


@pytest.mark.parametrize("sides", [(8, 8), (21, 13)])
def test_large_images_are_treated_in_tiles(denoised, noisy, sides):
    write_images("large", [np.pad(noisy[0], ((0, sides[0] - 8), (0, sides[1] - 8)))])
    write_images("large/more", [noisy[1]])
    given = ["large/0.png", "large/more", "--tile", "--report", "r", "--sigma", 0.1, "--method", "map"]
    assert denoised(*given)
    assert pixels_of("out/0.png").shape == sides
    assert pixels_of("out/0-2.png").shape == (8, 8)
    assert len(table("r/denoised.csv")) == 2


def test_a_tile_of_the_whole_image_changes_nothing(denoised, noisy):
    for method in ("auto", "projection"):
        whole = denoised("noisy", "--method", method, outdir="a")
        tiled = denoised("noisy", "--method", method, "--tile", outdir="b")
        for one, other in zip(whole, tiled, strict=True):
            assert one["method"] == other["method"]
            assert one["sigma"] == pytest.approx(other["sigma"], rel=1e-5)
            pixels = pixels_of(one["output"]), pixels_of(other["output"])
            np.testing.assert_allclose(*pixels, atol=1 / 255 + 1e-9)


def test_a_large_strange_image_is_named(mfimage, tiny_run, noisy):
    light = np.linspace(0, 0.5, 6)[:, None, None]
    write_images("large", [np.concatenate((1 - noisy) / 2 + light, 1)])
    code, _, err = mfimage("denoise", "large", "-m", tiny_run, "-o", "out", "--tile", "--sigma", 0.02)
    assert code == 0
    assert "large/0.png: far from" in err


def test_tiles_skip_bad_files_and_refuse_small_ones(mfimage, tiny_run, noisy):
    Path("noisy/zero.png").touch()
    command = ["denoise", "noisy", "-m", tiny_run, "-o", "out", "--tile"]
    code, _, err = mfimage(*command)
    assert code == 3
    assert "1 of 7 files cannot be used" in err
    code, out, _ = mfimage(*command, "--max-bad", 0.5, "--json")
    assert code == 0
    assert json.loads(out)["skipped"] == [{"path": "noisy/zero.png", "reason": "is empty (0 bytes)"}]
    write_images("small", [noisy[0][:5]])
    small = mfimage("denoise", "small", "-m", tiny_run, "--tile")
    assert fails(small, 3, "5 × 8 pixels are less than a tile of 8 × 8")


@pytest.mark.parametrize("tile", [[], ["--tile"]])
def test_a_mask_is_filled_in(denoised, noisy, tile):
    mask = np.zeros((8, 8))
    mask[:, 4:] = 1
    write_images("mask", [mask])
    write_images("holes", noisy * (1 - mask))
    for i, image in enumerate(denoised("holes", "--mask", "mask/0.png", "--clean", "clean", *tile)):
        assert (image["method"], image["sigma"], image["warning"]) == ("map", 0, "")
        holes, filled = pixels_of(f"holes/{i}.png"), pixels_of(image["output"])
        assert np.array_equal(filled[:, :4], holes[:, :4])
        assert image["psnr"] > psnr(holes, noisy[i]) + 6


def test_small_images_are_enlarged(denoised, noisy):
    write_images("small", noisy.reshape(6, 4, 2, 4, 2).mean((2, 4)))
    for i, image in enumerate(denoised("small", "--super", 2, "--clean", "clean", "--report", "r")):
        assert pixels_of(image["output"]).shape == (8, 8)
        nearest = np.kron(pixels_of(f"small/{i}.png"), np.ones((2, 2)))
        assert image["psnr"] > psnr(nearest, noisy[i]) + 5
