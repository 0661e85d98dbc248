"""Defects and peers of benchmarks/textures.py."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter, label

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
drawing, features, learned, page, tiles = (
    importlib.import_module(f"defects.{name}") for name in ("drawing", "features", "learned", "page", "tiles")
)
sys.path.pop(0)
KINDS = drawing.KINDS


def scene(seed, smooth=2.0):
    """A cloudy picture of 8 bits."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(160, 170)), smooth)
    return (np.round(255 * np.clip(0.5 + 0.15 * noise / noise.std(), 0, 1)) / 255).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_is_where_the_image_changed(kind):
    place = drawing.Place(scene(0), 50, 60, 64, [scene(1, 1.0), scene(2, 4.0)])
    sizes = []
    for seed in range(10):
        made, mask = drawing.defect(kind, place, np.random.default_rng(seed))
        again, same = drawing.defect(kind, place, np.random.default_rng(seed))
        assert (made == again).all()
        assert (mask == same).all()
        assert (made == place.tile)[~mask].all()
        assert (made != place.tile)[mask].mean() > 0.8
        assert place.tile.min() <= made.min()
        assert made.max() <= place.tile.max()
        assert np.abs(255 * made - np.round(255 * made)).max() < 1e-4
        assert np.bincount(label(mask, np.ones((3, 3)))[0][mask])[1:].min() >= drawing.LEAST
        sizes.append(mask.sum())
    assert max(sizes) > 2 * min(sizes)


def test_parts_of_a_picture_do_not_meet(monkeypatch):
    rows, columns = np.mgrid[:512, :512].astype(np.float32)
    few = tiles.Sizes(training=20, held=20, good=20, each=1)
    for where, parts in ((columns, {"good": (256, 511)}), (rows, {"held": (192, 319)})):
        monkeypatch.setattr(tiles, "picture", lambda name, where=where: where)
        monkeypatch.setattr(tiles, "KINDS", {})
        one = tiles.task("brick", few)
        for name, (first, last) in parts.items():
            found = getattr(one, name)
            assert first <= found.min() < found.max() <= last
        others = one.training if "held" in parts else one.familiar
        taken = (others >= first) & (others <= last)
        assert not taken.any()
        assert others.shape[1:] == (1, 64, 64)


def test_a_task_is_written_as_mvtec_is_laid_out(tmp_path):
    one = tiles.task("gravel", tiles.Sizes(training=2, held=1, good=1, each=2))
    more = tiles.task("gravel", tiles.Sizes(training=1, held=1, good=1, each=3))
    assert (more.defects["stain"][0][:2] == one.defects["stain"][0]).all()  # whatever the number
    tiles.write_folder(one, tmp_path)
    names = {str(path.relative_to(tmp_path / "gravel")) for path in tmp_path.rglob("*.png")}
    assert {"train/good/001.png", "validation/good/000.png", "test/good/000.png"} <= names
    assert {f"test/{kind}/001.png" for kind in KINDS} <= names
    assert len(names) == 4 + 4 * len(KINDS)
    image = np.asarray(Image.open(tmp_path / "gravel/test/stain/001.png"))
    assert image / 255 == pytest.approx(one.defects["stain"][0][1, 0].numpy(), abs=1e-6)
    mask = np.asarray(Image.open(tmp_path / "gravel/ground_truth/stain/001_mask.png"))
    assert ((mask == 255) == one.defects["stain"][1][1].numpy()).all()
    assert set(np.unique(mask)) == {0, 255}


def bands(x, weights, blocks):
    """Features as a network has them, of means and steps between pixels, on three grids."""
    steps = torch.cat([x, x.roll(1, 2) - x, x.roll(1, 3) - x], 1)
    return [torch.nn.functional.adaptive_avg_pool2d(steps.abs(), 64 // (2 + block // 4)) for block in blocks]


@pytest.mark.parametrize("fit", ["padim", "patchcore", "patches", "principal"])
def test_peers_find_a_bright_square(fit, monkeypatch):
    monkeypatch.setattr(features, "features", bands)
    generator = torch.Generator().manual_seed(0)
    familiar = (0.5 + 0.1 * torch.randn(40, 1, 64, 64, generator=generator)).clamp(0, 1)
    scorer = {
        "padim": lambda: features.padim(familiar, {}, size=8),
        "patchcore": lambda: features.patchcore(familiar, {}, kept=100, among=2000),
        "patches": lambda: learned.patches(familiar),
        "principal": lambda: learned.principal(familiar, 4),
    }[fit]()
    x = (0.5 + 0.1 * torch.randn(6, 1, 64, 64, generator=generator)).clamp(0, 1)
    x[:3, :, 8:20, 40:52] = 1
    scores, maps = scorer(x)
    assert maps.shape == (6, 64, 64)
    assert scores[:3].min() > scores[3:].max()
    for strange in maps[:3]:
        row, column = divmod(int(strange.argmax()), 64)
        assert 6 <= row < 22
        assert 38 <= column < 54


def test_a_coreset_takes_the_farthest():
    points = torch.tensor([[0.0], [1.0], [10.0], [12.0]])
    assert features.coreset(points, 3).flatten().tolist() == [0, 12, 10]
    assert len(features.coreset(points, 9)) == 4


def test_the_page_is_written_of_what_is_measured(monkeypatch, tmp_path):
    pytest.importorskip("matplotlib")
    one = tiles.task("brick", tiles.Sizes(training=1, held=1, good=2, each=1))
    values = {"image_auroc": 0.9, "pixel_auroc": 0.8, "aupro": 0.5}
    row = {
        "mean": {name: [value, value - 0.01, value + 0.02] for name, value in values.items()},
        "cells": {"brick": dict.fromkeys(KINDS, values)}, "cpu_seconds": 300.0, "seconds_an_image": 0.01234,
    }  # fmt: skip
    results = {
        "rows": {"ours": row}, "left_out": {"PaDiM": "a package is not installed"},
        "sizes": {"training": 1, "held": 1, "good": 2, "each": 1},
    }  # fmt: skip
    monkeypatch.setattr(page, "PAGE", tmp_path / "textures.md")
    page.write_page(results, "What it is.", [one], {"ours": {"brick": torch.rand(7, 64, 64)}})
    lines = (tmp_path / "textures.md").read_text(encoding="utf-8").splitlines()
    mean, cells = (line for line in lines if line.startswith("| ours"))
    assert mean == "| ours | 0.900 (0.890–0.920) | 0.800 (0.790–0.820) | 0.500 (0.490–0.520) | 300 | 0.012 |"
    assert cells.count("0.900 / 0.800 / 0.500") == len(KINDS) + 1
    assert "Left out: PaDiM, as a package is not installed." in lines
    with Image.open(tmp_path / "textures.png") as picture:
        assert picture.width > 300
