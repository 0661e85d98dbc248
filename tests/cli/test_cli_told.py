"""What denoise tells of each image, and what of a file its result keeps."""

import json
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from commands import fails, pixels_of
from PIL import Image
from tiny import SMALL_MODEL, write_images

from mfimage import ChangedWarning, build, denoise, from_pretrained, save_pretrained
from mfimage.denoising.methods import METHODS
from mfimage.noise import KINDS


def test_a_deviation_may_be_a_quotient_and_one_above_white_is_refused_at_once(mfimage, tiny_run, noisy):
    command = ["denoise", "noisy/0.png", "-m", tiny_run, "-o", "out", "--json", "--sigma"]
    assert json.loads(mfimage(*command, "51/255")[1])["images"][0]["sigma"] == pytest.approx(0.2)
    assert fails(mfimage("denoise", "none", "-m", "none", "--sigma", "50"), 2, "50/255")


def test_many_images_are_told_by_method(mfimage, tiny_run, noisy):
    write_images("many", [*noisy, *noisy, noisy[0]])
    Image.fromarray(np.rint(noisy[0] * 65535).astype(np.uint16)).save("many/deep.png")
    command = ["denoise", "many", "-m", tiny_run, "-o", "out", "--sigma", 0.2]
    code, out, err = mfimage(*command, "--json")
    assert code == 0
    found = json.loads(out)
    (only,) = found["methods"]
    assert (only["method"], only["images"], only["sigma"]) == ("projection", 14, pytest.approx(0.2))
    change = np.median([image["change"] for image in found["images"]])
    assert only["change"] == pytest.approx(change)
    said = f"  14  projection  σ 0.2  changed by {change:.2g} in the median\n"  # in no one unit
    assert f"14 images in out\n{said}" in err


def test_results_that_equal_what_was_given_are_counted_apart(mfimage, tiny_run, noisy, monkeypatch):
    def nearly(y, model, sigma):
        return y + torch.linspace(1e-3, 0.1, len(y)).view(-1, 1, 1, 1)  # of which 8 bits show only the last

    monkeypatch.setitem(METHODS, "projection", nearly)
    command = ["denoise", "noisy/0.png", "noisy/1.png", "-m", tiny_run, "-o", "out", "--sigma", 0.2, "--json"]
    _, out, err = mfimage(*command, "--method", "projection")
    assert [one["same"] for one in json.loads(out)["images"]] == [True, False]
    assert json.loads(out)["methods"][0]["same"] == 1
    assert np.array_equal(pixels_of("out/0.png"), pixels_of("noisy/0.png"))
    assert "2 images in out, 1 equal to what was given\n" in err
    assert "noisy/0.png  σ 0.2 (51/255)  projection: the result equals it\n" in err


def test_a_grey_file_stays_grey_under_a_model_of_colour_and_transparency_is_told(mfimage, noisy, monkeypatch):
    save_pretrained(build(replace(SMALL_MODEL, shape=(3, 8, 8)), seed=3), "colour")
    write_images("some", noisy[:1])
    Image.fromarray(np.rint(noisy[0] * 65535).astype(np.uint16)).save("some/deep.png")
    with Image.open("some/0.png") as picture:
        picture.convert("RGBA").save("some/rgba.png")
    tint = torch.tensor([0.0, 0.1, 0.2]).view(3, 1, 1)
    monkeypatch.setitem(METHODS, "projection", lambda y, model, sigma: 0.8 * y + tint)
    code, _, err = mfimage("denoise", "some", "-m", "colour", "-o", "out", "--method", "projection")
    assert code == 0
    assert "note: 1 of 3 images may be transparent: they are laid on white, and their results are" in err
    for name, mode in (("0", "L"), ("deep", "I;16"), ("rgba", "RGB")):
        warned = pytest.warns(ChangedWarning, match="opaque") if name == "rgba" else nullcontext()
        with warned:
            python = denoise(f"some/{name}.png", from_pretrained("colour"), method="projection")
        with Image.open(f"out/{name}.png") as result:
            assert (result.mode, python.mode) == (mode, mode)
            np.testing.assert_allclose(np.asarray(result).astype(int), np.asarray(python).astype(int), atol=1)


def test_noise_that_is_named_is_not_called_estimated(mfimage, tiny_run, noisy):
    small, mask = "small", "mask"
    write_images(small, noisy.reshape(6, 4, 2, 4, 2).mean((2, 4)))
    write_images(mask, [np.eye(8)])
    for options, words in (
        (["noisy"], "estimated"),
        (["noisy", "--noise", "poisson:30"], "poisson:30"),
        (["noisy", "--sigma", "0.2"], "0.2"),
        (["noisy", "--mask", "mask/0.png"], "none"),
        ([small, "--super", "2"], "none"),
        ([small, "--super", "2", "--sigma", "0.1"], "0.1"),
    ):
        code, _, err = mfimage("denoise", *options, "-m", tiny_run, "-o", "out", "--report", "r")
        assert code == 0, err
        with open("r/compare.html", encoding="utf-8") as file:
            page = file.read()
        assert ("estimated" in err, " estimated" in page) == (words == "estimated",) * 2
        assert f">{words}<" in page


def test_every_kind_of_noise_is_in_the_help(mfimage):
    text = " ".join(mfimage("denoise", "--help")[1].split())
    assert all(f"{kind}:" in text for kind in KINDS)


def test_the_noise_that_is_told_is_scaled_where_colours_become_luma(mfimage, tiny_run, noisy):
    write_images("some", [noisy[0], np.stack([noisy[0]] * 3, -1), noisy[0][..., None] * [1, 0.9, 0.8]])
    command = ["denoise", "some", "-m", tiny_run, "-o", "out", "--json"]
    for flag in ([], ["--tile"]):
        images = json.loads(mfimage(*command, *flag, "--sigma", "0.1")[1])["images"]
        assert [image["sigma"] for image in images] == pytest.approx([0.1, 0.1, 0.0669], abs=1e-4)
    _, out, err = mfimage(*command, "--noise", "poisson:30")
    assert [image["noise"] for image in json.loads(out)["images"]] == [
        "poisson:30",
        "poisson:30",
        "poisson:67",
    ]
    assert "note: 1 of 3 images: photons counted in three colours" in err
