import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
# fmt: off
KEYS = {
    "size": {"lines", "files", "lines_without_wings", "long_functions", "any", "circles"},
    "reconstruction": {"pca", "ratio_1", "cpu_seconds_1"},
    "step_cost": {"cpu_ratio", "mse_ratio_equal_cpu"},
    "invertibility": {"max_error_float64", "round_trip_float32"},
    "density": {
        "forwards_d32", "forwards_d64", "peak_mb_d64", "max_error_nats_per_dim", "coverage_2se",
        "exponent_d", "exponent_pixels", "cuda_seconds_10000",
    },
    "default_model": {"rows", "skipped", "odd", "odd_met", "bars"},
    "denoising": {"data", "facts", "left_out", "bars", "trained_cpu_seconds"},
    "restoring": {"data"},
    "dimension": {"recommended", "worst", "seconds"},
    "textures": {"rows", "bars", "left_out", "sizes"},
    "ood": {"parts", "bars"},
    "evaluation": {"tables", "parity", "rates", "ordering"},
    "loader": {"images_per_second", "training_images_per_second", "ratio", "cpu_ratio", "peak_mb_growth"},
    "stylegan": {"seeded", "faces"},
    "paper": {"fom", "pca"},
    "fresh_install": {"requires_dist", "developers_only", "wheel_mb", "seconds", "works"},
    "torture": {"tried", "held", "promises", "rounds", "failures", "slowest_seconds", "largest_mb"},
}
# fmt: on


def test_every_benchmark_is_listed_here():
    assert {path.stem for path in (ROOT / "benchmarks").glob("*.py")} - {"harness", "user_data"} == set(KEYS)


def check_denoising(results):
    rows, facts = results["data"]["fashion-mini"], results["facts"]["fashion-mini"]
    assert 20 < rows["noisy"]["0.1"]["psnr"] < 22.5  # -20 log10 0.1, and what is cut at black
    assert rows["noisy"]["0.1"]["seconds"] < rows["TV (best weight)"]["0.1"]["seconds"]
    assert rows["TV (best weight)"]["0.5"]["psnr"] > rows["noisy"]["0.5"]["psnr"] + 4
    assert set(rows) | set(results["left_out"]["fashion-mini"]) >= {
        "auto",
        "projection",
        "BM3D",
        "FFDNet",
    }
    assert all(facts[sigma]["off_manifold"] < 1e-4 for sigma in facts)
    bars = results["bars"]["fashion-mini"]
    assert bars["auto, dB at 0.1"]["found"] == pytest.approx(rows["auto"]["0.1"]["psnr"], abs=0.01)


def check_textures(results):
    assert set(results["rows"]) | set(results["left_out"]) == {
        "ours", "ours, by its map", "autoencoder", "PCA", "patches", "PaDiM", "PatchCore",
    }  # fmt: skip
    cells = results["rows"]["patches"]["cells"]["brick"]
    for measure, (value, low, high) in results["rows"]["patches"]["mean"].items():
        assert value == pytest.approx(np.mean([cell[measure] for cell in cells.values()]), abs=1e-3)
        assert low < value < high
    assert results["rows"]["patches"]["mean"]["pixel_auroc"][0] > 0.7


def check_ood(results):
    parts = results["parts"]
    table = parts["clothes"]["clothes"]
    areas = {
        row: {name: cell["auroc"] for name, cell in cells.items()} for row, cells in table["rows"].items()
    }
    assert np.mean([areas["auto"][name] for name in table["counted"]]) > 0.85
    assert areas["reconstruction"]["blurred"] < 0.2  # why one score is not enough
    assert areas["gradient energy"]["upside down"] == pytest.approx(0.5, abs=0.01)
    assert table["nothing"]["uniform noise"]["wins"]
    assert not table["nothing"]["upside down"]["wins"]
    assert table["matched"]["upside down"]["bits_auroc"] == pytest.approx(0.5, abs=0.03)
    treated = parts["clothes-treated"]["clothes"]["rows"]
    assert set(treated) == {row for row in areas if row in treated}
    assert treated["auto"]["blurred"] != table["rows"]["auto"]["blurred"]
    assert {kind for kind, one in parts["leave-out"].items() if "rows" in one} == {"t-shirt"}
    alarms = parts["false-alarms"]["clothes-0"]["alphas"]
    assert alarms["0.05"]["low"] < 15 < alarms["0.05"]["high"]
    assert alarms["0.001"] is None
    (tried,) = parts["families"].values()
    assert tried["notes"] == ["without other colours: hue is of images in colour, and these are grey"]
    assert all(bar["met"] in (True, False, None) for bar in results["bars"])


CHECKS = {"denoising": check_denoising, "textures": check_textures, "ood": check_ood}


@pytest.mark.parametrize("name", KEYS)
def test_benchmark_runs_and_ends_in_one_json_object(name):
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), "--quick"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout.splitlines()[-1])
    assert KEYS[name] <= set(results)
    assert results["quick"] is True
    if name in CHECKS:
        CHECKS[name](results)
    if name == "default_model":
        (row,) = results["rows"]
        assert row["ratio"] == pytest.approx(row["error"] / row["pca"])
        assert row["met"]["ratio"] == (row["ratio"] <= 1)
        assert results["odd_met"] == {"float32": True, "float64": True}
    if name == "invertibility":
        assert results["max_error_float64"] < 1e-9
        assert results["round_trip_float32"] < 1e-4
    if name == "density":
        assert results["max_error_nats_per_dim"] < 1e-5
        assert results["seconds"]["d64"]["ours"] < results["seconds"]["d64"]["vjp"] / 20
    if name == "restoring":
        half = results["data"]["fashion-mini"]["half of the pixels"]
        assert half["over"] == pytest.approx(half["ours"] - half["other"])
        assert half["low"] < half["over"] < half["high"]
    if name == "torture":
        assert results["failures"] == []
        assert all(one["held"] == one["tried"] > 0 for one in results["promises"].values())
        assert set(results["promises"]) == {
            "a killed verb loses nothing", "a folder has one writer", "a full disk loses nothing",
            "a full stream loses nothing", "a damaged file is read rightly or refused",
            "a nonsense configuration is refused", "a nonsense command line ends with a documented exit code",
            "no file costs much more than it is, runs code or is waited for",
            "streams, locales, homes and names change no result",
        }  # fmt: skip
    if name == "fresh_install":
        assert results["works"] is True
        assert results["developers_only"] == []
        assert results["wheel_mb"] < 10
    if name == "paper":
        assert results["fom"]["distance"][0] < 1e-6
        assert results["pca"]["distance"][0] > 0.1


def test_inverse_anscombe_has_no_bias(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from denoisers.classics import anscombe, inverse_anscombe
    from denoisers.sets import Noise

    draw = np.random.default_rng(0)
    for noise in (Noise(0.0, 1 / 30), Noise(0.05, 1 / 30)):
        for x in (0.1, 0.4, 0.9):
            y = noise.gain * draw.poisson(x / noise.gain, 400_000) + noise.sigma * draw.normal(size=400_000)
            z = anscombe(y, noise)
            assert z.std() == pytest.approx(1, abs=0.06)
            assert inverse_anscombe(z.mean(), noise) == pytest.approx(x, abs=0.001)
            algebraic = noise.gain * (z.mean() ** 2 / 4 - 0.375) - noise.sigma**2 / noise.gain
            assert abs(algebraic - x) > 0.005


@pytest.mark.parametrize("noisy", [True, False])
def test_the_page_of_denoising_is_written_of_what_is_measured(noisy, monkeypatch, tmp_path):
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from denoisers import page
    from denoisers.bars import summary
    from denoisers.sets import GAUSSIAN, PHOTONS

    def row(best, noises, count):
        qualities = {str(noise): [best - 20 * noise.sigma + i for i in range(count)] for noise in noises}
        return {n: {"psnr": q, "ssim": 0.9, "seconds": 0.1, "setting": ""} for n, q in qualities.items()}

    found = {"auto": row(33.0, (*GAUSSIAN, *PHOTONS), 4), "BM3D": row(32.0, (*GAUSSIAN, *PHOTONS), 2)}
    if noisy:
        found["noisy"] = row(20.0, (*GAUSSIAN, *PHOTONS), 4)
    one = {
        "rows": {name: summary(cells, found) for name, cells in found.items()},
        "sigma": dict.fromkeys(found, "known"), "facts": {"0.1": {"within_1": 0.684}},
        "left_out": {"DnCNN": "deepinv is not installed"}, "trained_cpu_seconds": {"m-flow": 1500.0},
        "bars": {"auto, dB at 0.1": {"asked": "≥ 28.2", "found": 32.5, "met": True}},
    }  # fmt: skip
    monkeypatch.setattr(page, "PAGE", tmp_path / "denoising.md")
    page.write_page({"clothes": one}, "What it is.")
    lines = (tmp_path / "denoising.md").read_text(encoding="utf-8").splitlines()
    (table, ahead, photons) = (line for line in lines if line.startswith("| BM3D"))
    assert table.startswith("| BM3D | known | 31.50 ± ")
    assert table.endswith("| 0.1 | 2 |")
    assert ahead.startswith("| BM3D | +1.00 ± 0.00 |")
    assert photons.endswith("| 2 |")
    assert "| auto, dB at 0.1 | ≥ 28.2 | **32.5** | yes |" in lines
    assert "Left out: deepinv is not installed – DnCNN." in lines
    with Image.open(tmp_path / "denoising.png") as picture:
        assert picture.width > 300


def test_a_row_is_kept_without_the_paths_of_a_machine(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from evaluation import KEPT, keep

    data = {"train": {"name": "/home/me/a.zip + /home/me/b.zip"}, "test": {"name": "fashion-mnist"}}
    written = tmp_path / "evaluation.json"
    written.write_text(json.dumps({"data": data, "numbers": {"fid": {"value": 60.0}}}))
    keep(tmp_path / "rows" / "ours.json", {"fid": 60.0, "cpu_seconds": 9.0}, written)
    found = json.loads((tmp_path / "rows" / "ours.json").read_text())
    assert found["values"] == {"cpu_seconds": 9.0}
    assert {one["name"] for one in found["evaluation"]["data"].values()} == {"a.zip + b.zip", "fashion-mnist"}
    rows = list(KEPT.glob("*/*.json"))
    assert rows
    assert not [path for path in rows if '"/' in path.read_text()]
