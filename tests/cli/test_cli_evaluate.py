"""The verbs evaluate and compare, as typed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import fails
from tiny import ONE_THREAD, draw_bumps, write_images

CHEAP = ["--metrics", "reconstruction,density,fd"]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def run(tiny_run, tmp_path):
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


def test_evaluate_leaves_numbers_and_a_page_in_the_run(mfimage, run, bumps):
    code, out, err = mfimage("evaluate", "run", bumps, *CHEAP)
    assert code == 0
    verdict, head = out.splitlines()[:2]
    assert verdict.startswith("Reconstructs unseen images with ")
    assert "squared error than 2 principal components (0." in verdict
    assert head.split() == ["value", "PCA", "95", "%", "interval", "N"]
    assert out.splitlines()[-1] == "run/evaluation.html"
    assert "reconstruction of 26 images" in err
    report = json.loads((run / "metrics.json").read_text())
    error = report["numbers"]["mse"]
    assert error["value"] < error["beside"]["pca"] / 2
    assert report["numbers"]["fd-scattering"]["n"] == 26
    page = (run / "evaluation.html").read_text()
    assert "Evaluation of run" in page
    assert f'<p class="lead">{verdict}' in page
    assert report["verdict"] == verdict
    quiet = mfimage("evaluate", "run", bumps, *CHEAP, "--json", "-q")
    assert quiet[2] == ""
    assert json.loads(quiet[1]) == report


def test_evaluate_takes_the_model_by_option_too(mfimage, run, bumps):
    by_place = mfimage("evaluate", "run", bumps, *CHEAP, "--json", "-q")
    by_option = mfimage("evaluate", bumps, "-m", "run", *CHEAP, "--json", "-q")
    assert by_place[:2] == by_option[:2]
    code, _, _ = mfimage("evaluate", bumps, "-m", run / "model", *CHEAP, "-o", "out", "-q")
    assert code == 0
    assert sorted(os.listdir("out")) == ["evaluation.html", "metrics.json"]
    assert mfimage("evaluate", bumps, *CHEAP)[0] == 4  # runs/latest is not there


def test_a_run_alone_is_measured_on_its_own_data(mfimage, run, bumps):
    code, out, err = mfimage("evaluate", "run", *CHEAP, "--json")
    assert code == 0
    assert f"on what the run was given: {bumps}" in err
    assert out == mfimage("evaluate", "run", bumps, *CHEAP, "--json", "-q")[1]
    assert fails(
        mfimage("evaluate", "run/model", *CHEAP), 2, "name images", "mfimage evaluate run/model DATA"
    )
    (run / "data.json").write_text('{"sources": ["DATA"]}')
    assert fails(mfimage("evaluate", "run", *CHEAP), 2, "mfimage evaluate run DATA")


def test_several_processes_measure_what_one_does(mfimage, run, bumps, tmp_path):
    alone = json.loads(mfimage("evaluate", "run", bumps, *CHEAP, "--json", "-q")[1])
    shutil.rmtree(tmp_path / "cache")
    command = [sys.executable, "-m", "mfimage", "evaluate", "run", str(bumps), *CHEAP, "--json", "-q"]
    processes = [
        subprocess.Popen(
            command,
            env={**os.environ, **ONE_THREAD, "RANK": str(rank), "WORLD_SIZE": "2"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    first, second = (process.communicate(timeout=300)[0] for process in processes)
    assert [process.returncode for process in processes] == [0, 0]
    assert second == ""
    assert json.loads(first)["numbers"] == alone["numbers"]


def test_compare_reads_what_evaluate_left(mfimage, run, bumps):
    for name, seed in (("one", 0), ("two", 1)):
        shutil.copytree(run, name)
        assert mfimage("evaluate", name, bumps, *CHEAP, "--seed", seed, "-q")[0] == 0
    code, out, _ = mfimage("compare", "one", "two", "-o", "out")
    assert code == 0
    assert out.splitlines()[0].split() == ["N", "one", "two"]
    assert out.splitlines()[-1] == "out/comparison.html"
    assert sorted(os.listdir("out")) == ["comparison.html", "comparison.json", "comparison.md"]
    code, out, _ = mfimage("compare", "one", "two", "--by", "mse")
    assert code == 0
    assert {line.split("\t")[1] for line in out.splitlines()} == {"one", "two"}
    assert json.loads(mfimage("compare", "one", "--by", "mse", "--json")[1])["ranking"][0]["run"] == "one"
    assert fails(mfimage("compare", "one", "two", "--by", "density"), 2, "cannot be ranked")
    assert mfimage("compare", "nowhere")[0] == 3
    assert fails(
        mfimage("compare", "one", "pca"), 2, "pca: is trained first, on the images that --data names"
    )


def test_compare_trains_baselines_with_the_settings_of_the_run(mfimage, run, bumps):
    command = ["compare", "run", "pca", "ae", "--data", bumps, "-o", "out", *CHEAP]
    code, out, err = mfimage(*command)
    assert (code, out.splitlines()[0].split()) == (0, ["N", "run", "pca", "ae"])
    assert {"run.json", "pca.json", "ae.json", "pca", "ae", "sheet.png"} <= set(os.listdir("out"))
    config = json.loads(Path("out/ae/config.json").read_text())
    assert config == json.loads((run / "config.json").read_text()) | {"algorithm": "pae"}
    found = json.loads(Path("out/comparison.json").read_text())["reports"]
    pca, ours = (found[name]["numbers"]["squared_error"] for name in ("pca", "run"))
    assert pca["value"] > 2 * ours["value"]
    assert pca["value"] == pytest.approx(ours["beside"]["pca"], rel=1e-5)  # one definition
    assert found["pca"]["verdict"].startswith("Is 2 principal components")
    before = Path("out/ae/model/model.safetensors").stat().st_mtime_ns
    code, again, err = mfimage(*command)
    assert (code, again) == (0, out)
    assert "features" not in err  # what was measured is read
    assert Path("out/ae/model/model.safetensors").stat().st_mtime_ns == before
    code, _, err = mfimage(*command, "--samples", 20)
    assert code == 0
    assert "features of samples: 20 of 20" in err


def test_baselines_need_a_run_and_its_images(mfimage, run, bumps):
    def compared(*runs, data=bumps):
        return mfimage("compare", *runs, "--data", data, *CHEAP, "-o", "out")

    assert fails(compared("pca"), 2, "name one before them")
    np.save("other.npy", draw_bumps(220, seed=5))
    assert fails(compared("run", "pca", data="other.npy"), 3, "not the images that the run")
    assert fails(compared("run", "beauty"), 4, "beauty: no such directory")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--metrics", "beauty"], "--metrics: beauty: choose from"),
        (["--protocol", "mine"], '"mine" for --protocol'),
        (["--samples", "1"], "--samples"),
    ],
)
def test_wrong_requests_are_code_2(mfimage, run, bumps, arguments, word):
    for verb in (["evaluate", "run", bumps], ["compare", "run", "--data", bumps]):
        assert fails(mfimage(*verb, *arguments), 2, word)


def test_defects_are_measured(mfimage, run):
    np.save("fresh.npy", draw_bumps(300, seed=11))
    assert mfimage("calibrate", "fresh.npy", "-m", "run", "--alpha", 0.05, "--split", "all")[0] == 0
    spoiled, masks = draw_bumps(6, seed=6), np.zeros((6, 8, 8), np.uint8)
    spoiled[:, 5:, :3], masks[:, 5:, :3] = 255, 255
    write_images("set/test/good", draw_bumps(10, seed=5))
    write_images("set/test/square", spoiled)
    write_images("set/ground_truth/square", masks)
    code, out, err = mfimage("evaluate", "run", "--ood", "set", "-o", "found", "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report["kinds"]["square"]["n"] == 6
    assert report["mean"]["pixel_auroc"]["value"] > 0.8
    assert json.loads(Path("found/defects.json").read_text()) == report
    code, out, _ = mfimage("evaluate", "-m", "run", "--ood", "set/test", "--masks", "set/ground_truth")
    assert code == 0
    assert "AUPRO" in out.splitlines()[0]
    Path("set/ground_truth/square/2.png").unlink()
    assert fails(mfimage("evaluate", "run", "--ood", "set"), 3, "set/test/square/2.png: has no mask")
    assert fails(mfimage("evaluate", "run", "set", "--ood", "set"), 2, "name the model alone")
    assert fails(mfimage("evaluate", "run", "--masks", "set"), 2, "--masks goes with --ood")
    assert fails(mfimage("evaluate"), 2, "name images")
