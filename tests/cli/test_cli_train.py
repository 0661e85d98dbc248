"""Training from the command line."""

import errno
import html
import json
import re
import shlex
import signal
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import fails, raising
from tiny import draw_bumps

from mfimage import Config, ModelConfig, presets
from mfimage.config import SETTLED
from mfimage.errors import Interrupted
from mfimage.settings import from_json


def test_train_writes_a_run_and_says_where_the_model_is(mfimage, short, photos):
    code, out, err = mfimage("train", photos, "--outdir", "run", "--config", short, "--device", "cpu")
    assert (code, out) == (0, "run/model\n")
    assert "manifold" in err
    assert "density" in err
    assert "images/s" not in err
    assert "31 images to learn from, 3 held out, 8×8 colour\n" in err
    shown = r"^manifold  100 %  step 4  error [\d.]+ \(held out [\d.]+, [\d.]+ of PCA's\)  \d+ s left of "
    assert re.search(shown, err, re.M)
    assert re.search(r"^density   100 %  step 4  loss [\d.-]+ \(held out [\d.-]+\)  \d+ s left of", err, re.M)
    assert "nan" not in err
    assert Path("run/command.txt").read_text().startswith(f"mfimage train {photos} --outdir run")


def test_train_ends_with_a_verdict_a_page_and_what_to_type_next(mfimage, short, bumps):
    code, out, err = mfimage("train", bumps, "-o", "my run", "--config", short, "--device", "cpu")
    assert (code, out) == (0, "my run/model\n")
    said = err.splitlines()
    beside = r"principal components.*\([01]\.|as principal components"
    (verdict,) = [i for i, line in enumerate(said) if re.search(beside, line)]
    assert said[verdict + 1 : verdict + 3] == ["Page: my run/report.html", "Next:"]
    typed = [line.removeprefix("  mfimage ") for line in said[verdict + 3 :]]
    assert [line.split()[0] for line in typed] == ["denoise", "sample", "score", "evaluate"]
    assert all("'my run'" in line for line in typed)
    assert mfimage(*shlex.split(typed[1]))[0] == 0
    assert mfimage(*shlex.split(typed[3]), "--metrics", "reconstruction", "-q")[0] == 0


def test_a_page_that_fails_loses_no_model(mfimage, short, bumps, monkeypatch):
    monkeypatch.setattr(
        "mfimage.results.Results.write_report", raising(OSError(errno.ENOSPC, "No space left"))
    )
    code, out, err = mfimage("train", bumps, "-o", "run", "--config", short, "--device", "cpu")
    assert (code, out) == (0, "run/model\n")
    assert "warning: no report.html: No space left" in err
    assert "Page:" not in err
    assert mfimage("sample", "-m", "run", "-n", 1, "-q")[0] == 0


def test_what_was_decided_is_said_and_stands_on_the_page(mfimage, short, bumps):
    Path("open.json").write_text(json.dumps(json.loads(short.read_text()) | {"flip": None, "dim": None}))
    code, _, err = mfimage("train", bumps, "-o", "run", "--config", "open.json", "--device", "cpu")
    assert code == 0
    decided = json.loads(Path("run/decisions.json").read_text())
    assert err.splitlines()[1 : 1 + len(decided)] == decided
    assert any(line.startswith("d = ") for line in decided)
    page = Path("run/report.html").read_text(encoding="utf-8")
    assert all(html.escape(line) in page for line in decided)


def test_train_in_json_and_quietly(mfimage, short, bumps):
    result = mfimage(
        "train", bumps, "-o", "run", "--config", short, "--steps", 2, "--seed", 5, "--json", "-q"
    )
    assert result[0] == 0
    assert json.loads(result[1]) == {"model": "run/model", "dim": 2, "shape": [1, 8, 8]}
    assert result[2] == ""
    config = json.loads(Path("run/config.json").read_text())
    assert (config["steps"], config["seed"], config["density_steps"]) == (2, 5, 4)
    again = mfimage("train", bumps, "-o", "run", "--resume", "-q")
    assert again == (0, "run/model\n", "")
    said = mfimage("train", bumps, "-o", "run", "--resume")[2].splitlines()
    assert said[:2] == ["175 images to learn from, 19 held out, 8×8 grey", "measuring what was learned"]
    assert re.match(
        "Reconstructs unseen images with .* less squared error than 2 principal components", said[2]
    )  # and no bars of phases that have ended


def test_train_scales_to_a_size(mfimage, short, photos):
    assert (
        mfimage("train", photos, "-o", "run", "--config", short, "--size", 12, "--channels", 1, "-q")[0] == 0
    )
    assert json.loads(Path("run/model/config.json").read_text())["shape"] == [1, 12, 12]


def test_a_declared_range_is_taken(mfimage, short):
    np.save("float.npy", draw_bumps(60) / 10.0)
    assert fails(mfimage("train", "float.npy", "-o", "run", "--config", short, "-q"), 3, "outside [0, 1]")
    declared = ["--value-range", "0,25.5", "-q"]
    assert mfimage("train", "float.npy", "-o", "run", "--config", short, *declared)[0] == 0
    evaluate = ["evaluate", "float.npy", "-m", "run", "--metrics", "reconstruction"]
    assert fails(mfimage(*evaluate), 3, "outside [0, 1]")
    assert mfimage(*evaluate, *declared)[0] == 0


def test_divergence_is_code_5(mfimage, short, bumps, monkeypatch):
    from mfimage import losses

    exact = losses.reconstruction
    monkeypatch.setattr(
        losses,
        "reconstruction",
        lambda chart, x, *_: exact(chart, x) * (float("nan") if torch.is_grad_enabled() else 1),
    )
    result = mfimage("train", bumps, "-o", "run", "--config", short, "-q")
    assert fails(result, 5, "at step 0 (batch 0: 64 rows", "run/checkpoints/refinement-00000000.safetensors")


@pytest.mark.parametrize(
    ("target", "error"),
    [
        ("os.fsync", OSError(errno.ENOSPC, "No space left on device")),
        ("os.replace", OSError(errno.ENOSPC, "No space left on device")),
    ],
)
def test_a_disk_that_fills_while_training_is_code_6(mfimage, short, bumps, monkeypatch, target, error):
    monkeypatch.setattr(target, raising(error))
    result = mfimage("train", bumps, "-o", "run", "--config", short, "-q")
    assert fails(result, 6, "cannot be written", "No space left")
    assert not list(Path("run").rglob("*.tmp"))


ENDINGS = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]


@pytest.mark.parametrize(("number", "code"), ENDINGS)
def test_an_interrupted_training_has_its_code(mfimage, bumps, monkeypatch, number, code):
    monkeypatch.setattr("mfimage.training.train", raising(Interrupted(number, "saved step 3")))
    assert fails(mfimage("train", bumps), code, "mfimage: saved step 3; continue with --resume\n")


@pytest.mark.parametrize("verb", [["reproduce", "circle"], ["demo"]])
def test_a_verb_that_goes_on_by_itself_says_so_when_it_is_interrupted(mfimage, monkeypatch, verb):
    stopped = raising(Interrupted(signal.SIGTERM, "saved step 3"))
    monkeypatch.setattr("mfimage.clothes_demo.run_demo", stopped)
    monkeypatch.setattr("mfimage.experiments.reproduce.reproduce", stopped)
    assert fails(mfimage(*verb), 143, "mfimage: saved step 3; the same command goes on\n")


@pytest.mark.parametrize(("number", "code"), ENDINGS)
def test_a_signal_before_there_is_anything_to_save_has_its_code(mfimage, bumps, monkeypatch, number, code):
    monkeypatch.setattr("mfimage.training.train", lambda *_, **__: signal.raise_signal(number))
    assert fails(mfimage("train", bumps), code)


def test_settings_are_printed_as_the_configuration_that_they_make(mfimage):
    command = ["train", "--preset", "demo", "--density-lr", "1e-4", "--warmup", "7", "--flip"]
    code, out, err = mfimage(*command, "--model.width", 8, "--model.levels", 2, "--print-config")
    assert (code, err) == (0, "")
    expected = presets["demo"].with_(density_lr=1e-4, warmup=7, flip=True)
    model = {"width": 8, "levels": 2}
    assert from_json(Config, json.loads(out)) == expected.with_(model=model)
    Path("settings.json").write_text(out)
    again = mfimage("train", "--config", "settings.json", "--noise", "1e-3", "--no-flip", "--print-config")[1]
    assert json.loads(again) == json.loads(out) | {"noise": 0.001, "flip": False}


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("20m", 1200), ("1.5h", 5400)])
def test_a_time_takes_the_place_of_steps(mfimage, text, seconds):
    out = mfimage("train", "--preset", "demo", "--time", text, "--print-config")[1]
    config = from_json(Config, json.loads(out))
    assert (config.time, config.steps, config.density_steps) == (seconds, None, None)
    assert config.allows(presets["demo"].with_(time=seconds))


def test_a_time_that_is_none_and_two_ways_to_say_how_long_are_refused(mfimage):
    assert fails(mfimage("train", "--time", "soon", "--print-config"), 2, "soon: a time is expected, as 90,")
    assert fails(mfimage("train", "--time", "-3", "--print-config"), 2, "-3: a time is expected")
    assert fails(mfimage("train", "--time", "9", "--steps", 3, "--print-config"), 2, "choose one")
    assert fails(mfimage("train", "--density-steps", 3, "--print-config"), 2, "density_steps goes with steps")


def test_a_resumed_run_may_be_given_more(mfimage, short, bumps):
    assert mfimage("train", bumps, "-o", "run", "--config", short, "-q")[0] == 0
    resume = ["train", bumps, "-o", "run", "--resume", "-q"]
    assert fails(mfimage(*resume, "--dim", 3), 2, "only --steps, --density-steps and --time may grow")
    assert fails(mfimage(*resume, "--model.width", 3), 2, "only --steps")
    assert fails(mfimage(*resume, "--steps", 2), 2, "steps can only grow: the run was planned for 4")
    assert fails(mfimage(*resume, "--time", "1m"), 2, "can only be given more steps and density_steps")
    assert mfimage(*resume, "--steps", 8)[0] == 0
    config = json.loads(Path("run/config.json").read_text())
    assert (config["steps"], config["density_steps"]) == (8, 4)
    lines = [json.loads(line) for line in Path("run/stats.jsonl").read_text().splitlines()]
    assert [(line["phase"], line["step"]) for line in lines] == [
        *((phase, step) for phase in ("manifold", "refinement") for step in (2, 4, 6, 8)),
        ("density", 2), ("density", 4),
    ]  # fmt: skip


def test_every_setting_has_a_flag_with_its_help(mfimage):
    out = mfimage("train", "--help")[1]
    names = [f"--{one.name}" for one in fields(Config) if one.name != "model"]
    names += [f"--model.{one.name}" for one in fields(ModelConfig) if one.name not in SETTLED]
    assert all(f"{name.replace('_', '-')} " in out for name in names)
    assert "Images a step, over all processes together;" in out
    assert "[default: 256]" in out


def test_an_ambient_flow_is_measured_in_bits_and_says_that_it_does_not_project(mfimage, short, bumps):
    assert mfimage("train", bumps, "-o", "af", "--config", short, "--algorithm", "af", "-q")[0] == 0
    code, out, _ = mfimage(
        "evaluate", bumps, "-m", "af", "--metrics", "reconstruction,density", "--json", "-q"
    )
    result = json.loads(out)
    assert code == 0
    assert result["skipped"]["reconstruction"] == "an ambient flow is its own projection"
    nats = result["numbers"]["log_prob_per_dim"]["value"]
    assert result["numbers"]["bits_per_dim"]["value"] == pytest.approx(8 - nats / np.log(2))
    assert fails(mfimage("score", bumps, "-m", "af"), 4, "no manifold to project onto", "model.log_prob")
    assert mfimage("sample", "-m", "af", "-n", 2, "-o", "drawn", "-q")[0] == 0
