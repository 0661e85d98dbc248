"""Clean images beside those that are denoised: which belongs to which."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from commands import fails, pixels_of, psnr
from PIL import Image
from tiny import write_images


def test_clean_images_of_another_size_are_refused(mfimage, tiny_run, noisy):
    write_images("other", [np.zeros((9, 8))] * 6)
    code, _, err = mfimage("denoise", "noisy", "-m", tiny_run, "--clean", "other")
    assert code == 3
    assert "other/0.png: 9 × 8 pixels, but the result has 8 × 8" in err


def test_clean_images_of_another_kind_of_file_are_found(mfimage, tiny_run, noisy):
    Path("bmp").mkdir()
    for i in range(6):
        Image.open(f"clean/{i}.png").save(f"bmp/{i}.bmp")
    one, other = (
        mfimage("denoise", "noisy", "-m", tiny_run, "--clean", folder, "--json")[1]
        for folder in ("bmp", "clean")
    )
    assert json.loads(one) == json.loads(other)


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
def test_clean_images_are_found_by_their_place_in_the_folder(mfimage, denoised, tiny_run, nested, inputs):
    if inputs == ["n/a", "n/b"]:  # each is a folder of its own: both have a 0.png
        both = mfimage("denoise", *inputs, "-m", tiny_run, "-o", "out", "--clean", "clean")
        assert fails(both, 3, "would be the clean image of both")
        return
    for i, image in enumerate(denoised(*inputs, "--clean", "originals")):
        assert image["psnr"] == pytest.approx(psnr(pixels_of(image["output"]), nested[i]), abs=0.1)


def test_no_two_images_are_measured_against_one(mfimage, tiny_run, nested):
    command = ["-m", tiny_run, "-o", "out", "--clean", "clean"]
    words = "clean/0.png: would be the clean image of both n/a/0.png and n/b/0.png: put the clean images"
    assert fails(mfimage("denoise", "n", *command), 3, words)
    assert not Path("out").exists()
    for folder in ("n/a", "n/b"):  # one after the other it may be
        assert mfimage("denoise", folder, *command, "-q")[0] == 0


def test_the_images_themselves_are_no_clean_ones(mfimage, tiny_run, noisy):
    words = "noisy: its 0.png is the image that is to be denoised, not a clean one"
    assert fails(mfimage("denoise", "noisy", "-m", tiny_run, "-o", "out", "--clean", "noisy"), 3, words)


def test_clean_images_that_are_missing_are_told_before_the_model_is_read(mfimage, noisy):
    Path("empty").mkdir()
    refused = mfimage("denoise", "noisy", "-m", "no-model", "-o", "out", "--clean", "empty")
    assert fails(refused, 3, "empty: holds no clean images of the name of noisy/0.png")


def test_clean_images_and_their_quality_are_on_the_page(mfimage, tiny_run, noisy):
    assert mfimage("denoise", "noisy", "-m", tiny_run, "--clean", "clean", "--report", "r")[0] == 0
    page = Path("r/compare.html").read_text(encoding="utf-8")
    assert page.count("the clean image") == 6
    assert len(re.findall(r"\d+\.\d dB before, \d+\.\d after", page)) == 6
