"""A test for each row of docs/promises.md."""

import os
import re
import zipfile
import zlib
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from imagefiles import bomb, content, tiff
from PIL import Image, ImageCms
from pngs import key, png

from mfimage.config import Reading
from mfimage.datasets import load, load_files, to_batch
from mfimage.datasets import sources as reading
from mfimage.errors import DataError

PAGE = Path(__file__).parents[2] / "docs" / "promises.md"
RNG = np.random.default_rng(0)
RED = (200, 30, 40)


def noise(height=8, width=8):
    return Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture
def folder(tmp_path):
    """Thirty good images of 8 × 8."""
    (tmp_path / "set").mkdir()
    for i in range(30):
        noise().save(tmp_path / "set" / f"good{i}.png")
    return tmp_path / "set"


def reason(folder, data, name="bad.png"):
    """Why a file among good ones is skipped."""
    (folder / name).write_bytes(data)
    images = load(folder, "all")
    assert len(images) == 30
    (bad,) = images.skipped
    assert bad.path == f"{folder}/{name}"
    return bad.reason


def alone(folder, data, name="one.png", **how):
    """One image read by itself through a folder, (C, H, W)."""
    place = folder.parent / "alone"
    place.mkdir(exist_ok=True)
    (place / name).write_bytes(data)
    return load(place, "all", **how)


def corrupt(folder):
    data = bytearray(content(noise()))
    data[60:90] = bytes(30)
    assert "is damaged" in reason(folder, bytes(data))


def truncated(folder):
    for kind in ("png", "jpeg", "webp", "bmp", "gif", "tiff"):
        data = content(noise(40, 40), kind.upper())
        found = reason(folder, data[: len(data) // 2], f"bad.{kind}")
        assert "is damaged" in found
        (folder / f"bad.{kind}").unlink()


def zero_byte(folder):
    assert reason(folder, b"") == "is empty (0 bytes)"


def renamed_text(folder):
    assert reason(folder, b"Dear Sir or Madam").startswith("is not an image in a format that mfimage reads")


def decompression(folder):
    assert "60000×60000 pixels are more than the limit of 64,000,000" in reason(folder, bomb(60_000))


def deep_grey(folder):
    values = RNG.integers(0, 65536, (8, 8), dtype=np.uint16)
    images = alone(folder, content(values))
    assert images.images.dtype == torch.float32
    np.testing.assert_allclose(images.batch([0])[0, 0], values / 65535, atol=1e-6)


def deep_colour(folder):
    values = RNG.integers(0, 65536, (8, 8, 3), dtype=np.uint16)
    images = alone(folder, tiff(values, photometric="rgb"), "one.tif")
    assert images.images.dtype == torch.float32
    np.testing.assert_allclose(images.batch([0])[0], values.transpose(2, 0, 1) / 65535, atol=1e-6)


def strange_tiff(folder):
    assert reason(folder, tiff(np.zeros((8, 8))), "bad.tif").startswith("is damaged, or a TIFF of numbers")


def small_numbers(folder):
    """The same from a TIFF and from an array."""
    ramp = np.arange(64, dtype=np.int32).reshape(8, 8)
    words = "int32 values up to 63 are all black on a scale to 2.14748e+09"
    assert words in reason(folder, tiff(ramp), "bad.tif")
    np.save(folder.parent / "bad.npy", ramp[None])
    with pytest.raises(DataError, match=re.escape(words)):
        load(folder.parent / "bad.npy", "all")


def colour_key(folder):
    values = np.array([[[1, 2, 3], [4, 5, 6]]], np.uint16)
    x = alone(folder, png(values, 16, key(values[0, 1]))).batch([0])[0]
    np.testing.assert_allclose(x[:, 0], [[1 / 65535, 1], [2 / 65535, 1], [3 / 65535, 1]], atol=1e-7)


def long_text(folder):
    data = png(np.full((8, 8), 7), 8, (b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2_000_000))))
    assert (alone(folder, data).images == 7).all()


def dead_argument(folder):
    (folder.parent / "dead.png").symlink_to(folder / "nowhere.png")
    gone = [folder.parent / "dead.png", folder.parent / "gone.png"]
    images = load_files([*folder.iterdir(), gone[0]])
    assert len(images) == 30
    assert [vars(one) for one in images.skipped] == [
        {"path": str(gone[0]), "reason": "cannot be read: No such file or directory"}
    ]
    with pytest.raises(DataError, match=r"2 of 5 files cannot be used(.|\n)*dead\.png(.|\n)*gone\.png"):
        load_files([*sorted(folder.iterdir())[:3], *gone])
    with pytest.raises(DataError, match=r"gone\.png: no such file"):
        load_files(gone[1:])


def cmyk(folder, profile=None):
    data = content(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "TIFF", icc_profile=profile)
    assert alone(folder, data, "one.tif").images[0, :, 0, 0].tolist() == [255, 0, 0]


def cmyk_with_profile(folder):
    cmyk(folder, ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())


def palette(folder):
    picture = Image.new("P", (8, 8), 0)
    picture.putpalette([10, 20, 30, *RED])
    picture.paste(1, (0, 0, 4, 8))
    x = alone(folder, content(picture, transparency=0)).images[0]
    assert x[:, 0, 0].tolist() == list(RED)
    assert x[:, 0, 7].tolist() == [255, 255, 255]


def alpha(folder):
    x = alone(folder, content(Image.new("RGBA", (8, 8), (*RED, 51)))).images[0]
    expected = [round(0.2 * c + 0.8 * 255) for c in RED]
    assert np.abs(x[:, 3, 3].numpy().astype(int) - expected).max() <= 1


def rotation(folder):
    picture = Image.new("RGB", (8, 8))
    picture.paste(RED, (0, 0, 8, 4))  # the upper half; by tag 6 it belongs on the right
    exif = Image.Exif()
    exif[274] = 6
    x = alone(folder, content(picture, exif=exif)).images[0]
    assert x[:, 0, 7].tolist() == list(RED)
    assert x[:, 7, 7].tolist() == list(RED)
    assert x[:, 0, 0].tolist() == [0, 0, 0]


def frames(kind):
    def first(folder):
        pages = [Image.new("RGB", (8, 8), colour) for colour in (RED, "blue", "green")]
        data = content(pages[0], kind, save_all=True, append_images=pages[1:])
        images = alone(folder, data, f"one.{kind.lower()}")
        assert len(images) == 1
        assert images.images[0, :, 0, 0].tolist() == list(RED)

    return first


def tiny(folder):
    assert alone(folder, content(Image.new("RGB", (1, 1), RED))).images[0].flatten().tolist() == list(RED)


def long(folder):
    strip = content(Image.new("RGB", (20_000, 3), RED))
    assert alone(folder, strip).shape == (3, 3, 20_000)
    assert alone(folder, strip, size=8).images[0, :, 4, 4].tolist() == list(RED)


def mixed_sizes(folder):
    noise(9, 8).save(folder / "other.png")
    with pytest.raises(DataError, match=r"differ in size: .*8×8.*other\.png is 9×8; .*--size") as caught:
        load(folder, "all")
    assert caught.value.exit_code == 3
    assert len(load(folder, "all", size=8)) == 31


def grey_model(folder):
    assert load(folder, "all", channels=1).notes == ("30 of 30 images lose their colour",)


def other_formats(folder):
    for name in ("a.avif", "b.JP2", "c.zip"):
        (folder / name).write_bytes(b"whatever")
    images = load(folder, "all", reading=Reading(max_bad=0.0))
    assert len(images) == 30
    assert [bad.reason for bad in images.skipped] == [
        "AVIF is not a format that mfimage reads: convert it",
        "JP2 is not a format that mfimage reads: convert it",
        "may hold many images: give it by itself",
    ]


def jfif(folder):
    assert alone(folder, content(Image.new("RGB", (8, 8), RED), "JPEG"), "one.jfif").shape == (3, 8, 8)


def system_folders(folder):
    for place in ("@eaDir/good0.png", "$RECYCLE.BIN", "__MACOSX", ".hidden"):
        (folder / place).mkdir(parents=True)
        (folder / place / "x.png").write_bytes(content(noise()))
    images = load(folder, "all")
    assert (len(images), images.skipped) == (30, ())


def linked_folder(folder):
    (folder.parent / "more").mkdir()
    noise().save(folder.parent / "more" / "one.png")
    (folder / "more").symlink_to("../more")
    (folder / "up").symlink_to("..")
    (folder / "again").symlink_to(folder.parent / "more")
    images = load(folder, "all", reading=Reading(max_bad=0.0))
    assert len(images) == 31
    assert {bad.path.removeprefix(f"{folder}/"): bad.reason for bad in images.skipped} == {
        "more": "is read already, under another name",
        "up": "is a link to a folder that it lies in: not followed",
    }


def doubled_name(folder):
    with zipfile.ZipFile(folder / "x.zip", "w") as archive:
        archive.writestr("a.png", content(Image.new("L", (8, 8), 1)))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a.png", content(Image.new("L", (8, 8), 2)))
    images = load(folder / "x.zip", "all")
    assert images.images[:, 0, 0, 0].tolist() == [1, 2]
    assert images.paths == (f"{folder}/x.zip/a.png", f"{folder}/x.zip/a.png (2)")


def permissions(folder):
    (folder / "bad.png").write_bytes(content(noise()))
    (folder / "bad.png").chmod(0)
    true_open = open

    def refusing(path, *rest, **how):  # also to root, whom permissions do not stop
        if str(path).endswith("bad.png"):
            raise PermissionError(13, "Permission denied")
        return true_open(path, *rest, **how)

    with mock.patch("builtins.open", refusing) if os.geteuid() == 0 else nullcontext():
        images = load(folder, "all")
    assert [bad.reason for bad in images.skipped] == ["cannot be read: Permission denied"]
    assert len(images) == 30


def broken_link(folder):
    (folder / "bad.png").symlink_to(folder / "nowhere.png")
    images = load(folder, "all")
    assert [bad.reason for bad in images.skipped] == ["cannot be read: No such file or directory"]
    assert len(images) == 30


def vanishing(folder):
    images = changed_after_listing(folder, lambda: (folder / "good7.png").unlink())
    assert [bad.reason for bad in images.skipped] == ["cannot be read: No such file or directory"]
    assert len(images) == 29


def appearing(folder):
    images = changed_after_listing(folder, lambda: noise().save(folder / "new.png"))
    assert not images.skipped
    assert len(images) == 30


def changed_after_listing(folder, change):
    listed = reading.choose

    def then(*given):
        rows = listed(*given)
        change()
        return rows

    with mock.patch.object(reading, "choose", then):
        return load(folder, "all")


def non_finite(folder):
    values = np.full((3, 8, 8), 0.5, np.float32)
    values[1, 2, 3] = np.nan
    np.save(folder.parent / "bad.npy", values)
    with pytest.raises(DataError, match=r"bad\.npy: holds values that are not finite") as caught:
        load(folder.parent / "bad.npy", "all")
    assert caught.value.exit_code == 3
    with pytest.raises(DataError, match="not finite"):
        to_batch(torch.full((1, 8, 8), float("inf")))


def out_of_range(folder):
    np.save(folder.parent / "bad.npy", np.linspace(-1, 1, 64, dtype=np.float32).reshape(1, 8, 8))
    with pytest.raises(DataError, match=r"bad\.npy: .*value_range"):
        load(folder.parent / "bad.npy", "all")
    x = load(folder.parent / "bad.npy", "all", reading=Reading(value_range=(-1, 1))).batch([0])
    assert (float(x.min()), float(x.max())) == (0.0, 1.0)


def channel_count(folder):
    np.save(folder.parent / "bad.npy", np.zeros((2, 8, 8, 5), np.uint8))
    with pytest.raises(DataError, match=r"bad\.npy: an array of shape \(2, 8, 8, 5\)") as caught:
        load(folder.parent / "bad.npy", "all")
    assert caught.value.exit_code == 3
    with pytest.raises(DataError, match=r"\(5, 8, 8\)"):
        to_batch(torch.zeros(5, 8, 8))


CASES = {
    "corrupt": corrupt,
    "truncated": truncated,
    "zero-byte": zero_byte,
    "renamed text": renamed_text,
    "decompression bomb": decompression,
    "16-bit grey": deep_grey,
    "16-bit colour": deep_colour,
    "TIFF of numbers that Pillow does not read": strange_tiff,
    "32-bit integers of small values": small_numbers,
    "CMYK without profile": cmyk,
    "CMYK with profile": cmyk_with_profile,
    "palette with transparency": palette,
    "transparent colour of a png, at any depth": colour_key,
    "alpha": alpha,
    "megabytes of text in a png": long_text,
    "EXIF rotation": rotation,
    "animated gif": frames("GIF"),
    "multi-page tiff": frames("TIFF"),
    "1×1 image": tiny,
    "20,000×3 image": long,
    "mixed sizes": mixed_sizes,
    "colour for a model of grey images": grey_model,
    "images of other formats": other_formats,
    "jfif": jfif,
    "folders of systems": system_folders,
    "link to a folder": linked_folder,
    "a name several times in a zip": doubled_name,
    "unreadable permissions": permissions,
    "broken symlink": broken_link,
    "argument that is not there, among others": dead_argument,
    "file that vanishes while the folder is read": vanishing,
    "file that appears while the folder is read": appearing,
    "non-finite floats": non_finite,
    "floats outside [0, 1]": out_of_range,
    "wrong channel count": channel_count,
}


def test_every_row_has_its_test():
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    assert [line.split("|")[1].strip() for line in lines][1:] == list(CASES)


@pytest.mark.parametrize("kind", CASES)
def test_what_the_page_says_happens(kind, folder):
    CASES[kind](folder)
