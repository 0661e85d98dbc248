"""Folders of defects with masks, and how well they are found."""

import json

import numpy as np
import pytest
from PIL import Image
from tiny import bump_images, draw_bumps, write_images

from mfimage import Detector
from mfimage.errors import DataError, UsageError
from mfimage.ood.defects import evaluate_defects, read_defects

SHAPE = (1, 8, 8)


@pytest.fixture
def laid_out(tmp_path):
    """Good bumps, bumps with a bright square (masks NAME_mask.png) and with a black row (NAME.png)."""
    write_images(tmp_path / "test" / "good", draw_bumps(20, seed=5))
    for kind, ending in (("square", "_mask"), ("row", "")):
        images = draw_bumps(8, seed=6)
        masks = np.zeros_like(images)
        place = np.s_[:, 5:8, :3] if kind == "square" else np.s_[:, 0:1, :]
        images[place], masks[place] = 230, 255
        write_images(tmp_path / "test" / kind, images)
        (tmp_path / "ground_truth" / kind).mkdir(parents=True)
        for i, mask in enumerate(masks):
            Image.fromarray(mask).save(tmp_path / "ground_truth" / kind / f"{i}{ending}.png")
    return tmp_path


def test_images_come_with_their_masks(laid_out):
    found = read_defects(laid_out, None, SHAPE)
    assert (len(found.good), list(found.kinds)) == (20, ["row", "square"])
    images, masks = found.kinds["square"]
    assert masks.shape == (8, 8, 8)
    assert masks[:, 5:8, :3].all()
    assert masks.sum() == 8 * 9
    assert (images.batch([3])[0, 0][masks[3]] == 230 / 255).all()
    same = read_defects(laid_out / "test", laid_out / "ground_truth", SHAPE)
    assert list(same.kinds) == list(found.kinds)


def test_masks_are_scaled_with_their_images_and_small_ones_stay(laid_out):
    for kind in ("square", "row"):
        for i in range(8):
            for path in (
                laid_out / "test" / kind / f"{i}.png",
                *(laid_out / "ground_truth" / kind).glob(f"{i}[._]*"),
            ):
                Image.open(path).resize((32, 32), Image.Resampling.NEAREST).save(path)
    mask = np.zeros((32, 32), np.uint8)
    mask[9, 14] = 255  # a sixteenth of a pixel
    Image.fromarray(mask).save(laid_out / "ground_truth" / "square" / "0_mask.png")
    masks = read_defects(laid_out, None, SHAPE).kinds["square"][1]
    assert masks[1].nonzero().tolist() == [[row, column] for row in (5, 6, 7) for column in (0, 1, 2)]
    assert masks[0].nonzero().tolist() == [[2, 3]]


@pytest.mark.parametrize("wrong", ["missing", "size", "black", "no good", "no kinds", "no masks"])
def test_what_is_wrong_with_a_folder_is_told_by_name(laid_out, wrong):
    mask = laid_out / "ground_truth" / "square" / "3_mask.png"
    words = {
        "missing": f"{laid_out / 'test' / 'square' / '3.png'}: has no mask: neither {mask} nor 3.png",
        "size": f"{mask}: 4 × 4 pixels, but",
        "black": f"{mask}: marks nothing",
        "no good": f"{laid_out / 'test' / 'good'}: no such folder of images without defects",
        "no kinds": "holds no folder of images with defects",
        "no masks": f"{laid_out / 'masks'}: no such folder of masks",
    }[wrong]
    masks = None
    if wrong == "missing":
        mask.unlink()
    elif wrong in ("size", "black"):
        Image.fromarray(np.zeros((4, 4) if wrong == "size" else (8, 8), np.uint8)).save(mask)
    elif wrong == "no good":
        (laid_out / "test" / "good").rename(laid_out / "test" / "fine")
    elif wrong == "no kinds":
        for kind in ("square", "row"):
            (laid_out / "test" / kind).rename(laid_out / kind)
    else:
        masks = laid_out / "masks"
    with pytest.raises(DataError) as told:
        read_defects(laid_out, masks, SHAPE)
    assert words in str(told.value)


def test_defects_are_found(laid_out, model, tmp_path):
    detector = Detector(model, "reconstruction").calibrate(
        bump_images(200, 11), 0.05, bump_images(20, 3), maps=True
    )
    report = evaluate_defects(detector, read_defects(laid_out, None, SHAPE))
    assert report.kinds["square"]["image_auroc"].value > 0.95
    assert report.kinds["square"]["image_auroc_by_map"].value > 0.95
    assert report.kinds["square"]["pixel_auroc"].value > 0.8
    assert report.mean["aupro"].value == pytest.approx(
        np.mean([report.kinds[kind]["aupro"].value for kind in ("square", "row")])
    )
    assert report.mean["aupro"].low < report.mean["aupro"].value
    stored = json.loads(report.save(tmp_path / "found.json").read_text())
    assert stored["kinds"]["row"]["n"] == 8
    assert stored["n_good"] == 20
    assert stored["mean"]["pixel_auroc"]["value"] == report.mean["pixel_auroc"].value
    lines = report.table().text().splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["row", "square", "mean"]
    plain, images = (
        Detector(model, "latent").calibrate(bump_images(60, 1), 0.1),
        read_defects(laid_out, None, SHAPE),
    )
    with pytest.raises(UsageError, match="calibrated without maps"):
        evaluate_defects(plain, images)
