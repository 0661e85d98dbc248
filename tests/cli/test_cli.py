import errno
import html
import json
import os
import re
import shlex
import shutil
import signal
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import SafetensorError
from tiny import TINY, draw_bumps, run_command

from mfimage import Config, ManifoldFlow, ModelConfig, __version__, console, presets
from mfimage.config import SETTLED
from mfimage.datasets import Skipped
from mfimage.errors import Interrupted
from mfimage.settings import from_json

VERBS = (
    "train", "sample", "denoise", "calibrate", "score", "log-prob", "directions", "interpolate", "evaluate",
    "compare", "pack", "reproduce", "demo",
)  # fmt: skip


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A folder of 8 × 8 images, PNG and JPEG, grey and colour, in two folders."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "more").mkdir()
    for index, image in enumerate(draw_bumps(40, seed=3)):
        picture = Image.fromarray(image).convert("RGB" if index % 3 else "L")
        picture.save(folder / ("more" if index % 2 else ".") / f"{index}.{'jpg' if index % 5 else 'png'}")
    return folder


@pytest.fixture
def short(tmp_path):
    path = tmp_path / "short.json"
    path.write_text(json.dumps(asdict(TINY) | {"steps": 4, "density_steps": 4, "every": 2}))
    return path


def fails(result, code, *words):
    """Hold that a command failed with a code and one short message, without a traceback."""
    status, out, err = result
    assert (status, out) == (code, ""), err
    assert all(word in err for word in words), err
    assert "Traceback" not in err
    return True


def size_of(path):
    with Image.open(path) as picture:
        return picture.size


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
    assert "warning: no report.html: OSError: [Errno 28] No space left" in err
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
    assert "2 principal components on unseen images" in said[2]  # and no bars of phases that have ended


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


def test_sample_writes_pictures_and_lists_them(mfimage, tiny_run):
    code, out, err = mfimage("sample", "--model", tiny_run, "-n", 5, "--outdir", "out", "--seed", 3)
    assert code == 0
    assert out.splitlines() == [f"out/sample-3-{i:05d}.png" for i in range(5)]
    assert err == "5 samples and sheet.png in out\n"
    assert sorted(os.listdir("out")) == [*(f"sample-3-{i:05d}.png" for i in range(5)), "sheet.png"]
    assert size_of("out/sample-3-00004.png") == (8, 8)


def test_the_same_seed_gives_the_same_samples_at_any_batch_size(mfimage, tiny_run, monkeypatch):
    decode, sizes, files = ManifoldFlow.decode, set(), []
    monkeypatch.setattr(ManifoldFlow, "decode", lambda flow, u, context: sizes.add(len(u)) or decode(flow, u))
    for name, size in (("a", 1), ("b", 7), ("c", 64)):
        assert mfimage("sample", "-m", tiny_run, "-n", 20, "-o", name, "--batch-size", size, "-q")[0] == 0
        files.append({path.name: path.read_bytes() for path in Path(name).iterdir()})
    assert sizes == {1, 7, 6, 20}
    assert files[0] == files[1] == files[2]
    assert len(set(files[0].values())) == 21
    mfimage("sample", "-m", tiny_run, "-n", 20, "-o", "other", "--seed", 1)
    assert Path("other/sheet.png").read_bytes() != files[0]["sheet.png"]


def test_denoise_writes_every_image_under_its_name(mfimage, tiny_run, photos):
    code, out, err = mfimage("denoise", photos, "-m", tiny_run, "-o", "clean", "--json")
    pairs = json.loads(out)["images"]
    assert code == 0
    assert re.match(r"40 images in clean, \d+ left as they are", err)  # they are clean
    assert len(pairs) == len(os.listdir("clean")) == 40
    for pair in pairs:
        assert Path(pair["input"]).stem == Path(pair["output"]).stem
        assert size_of(pair["output"]) == (8, 8)


def test_denoise_resizes_when_asked(mfimage, tiny_run):
    Image.new("L", (20, 30)).save("large.png")
    Image.new("L", (8, 8)).save("small.png")
    command = ["denoise", "-m", tiny_run, "-o", "clean"]
    assert fails(mfimage(*command, "large.png"), 3, "large.png: 30 × 20 pixels", "8 × 8", "--resize")
    assert fails(mfimage(*command, "small.png", "large.png"), 3, "differ in size", "--resize")
    code, out, _ = mfimage(*command, "small.png", "large.png", "--resize")
    assert (code, out) == (0, "clean/small.png\nclean/large.png\n")


def test_denoise_never_overwrites_its_inputs(mfimage, tiny_run):
    Image.new("L", (8, 8)).save("photo.png")
    before = Path("photo.png").read_bytes()
    assert fails(mfimage("denoise", "photo.png", "-m", tiny_run, "-o", "."), 2, "would be overwritten")
    assert Path("photo.png").read_bytes() == before


def test_score_prints_a_path_and_a_number_a_line(mfimage, tiny_run, photos):
    code, out, err = mfimage("score", f"{photos}/*.png", "-m", tiny_run)
    lines = [line.split("\t") for line in out.splitlines()]
    assert (code, err) == (0, "")
    assert lines
    assert all(Path(path).suffix == ".png" and 0 < float(value) < 0.1 for path, value in lines)
    rows = json.loads(mfimage("score", f"{photos}/*.png", "-m", tiny_run, "--json")[1])
    assert [[r["path"], f"{r['score']:.6g}"] for r in rows["scores"]] == lines
    assert rows["skipped"] == []


def test_skipped_files_are_told_on_stderr_and_in_the_result(mfimage, tiny_run, photos):
    shutil.copytree(photos, "some")
    Path("some/zero.png").touch()
    code, out, err = mfimage("score", "some", "-m", tiny_run, "--json", "-q")
    assert code == 0
    assert err == "1 file skipped:\n  some/zero.png: is empty (0 bytes)\n"
    assert json.loads(out)["skipped"] == [{"path": "some/zero.png", "reason": "is empty (0 bytes)"}]


def test_names_that_are_no_text_are_handed_through(mfimage, tiny_run):
    name = os.fsdecode(b"caf\xe9.png")
    try:
        Image.new("L", (8, 8)).save(name)
    except (OSError, UnicodeError):
        pytest.skip("this file system allows no such names")
    assert mfimage("score", ".", "-m", tiny_run, "--json")[0] == 0
    assert mfimage("denoise", name, "-m", tiny_run, "-o", "clean")[0] == 0
    assert os.listdir("clean") == [name]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "DATA", "--bogus"], ["Unknown option", "--bogus"]),
        (["nonsense"], ["Unknown command", "nonsense"]),
        (["train"], ["DATA is missing"]),
        (["train", "DATA", "--preset", "huge"], ["huge", "default", "demo"]),
        (["train", "DATA", "--value-range", "1"], ["--value-range: 1: LOW,HIGH"]),
        (["train", "DATA", "--value-range", "2,1"], ["value range", "below"]),
        (["train", "DATA", "--precision", "fp8"], ["--precision", "no", "bf16"]),
        (["train", "DATA", "--lr", "-1"], ["lr must be a positive number"]),
        (["train", "DATA", "--channels", "2"], ["--channels", "1", "3"]),
        (["train", "DATA", "--config", "none.json"], ["none.json: not a readable JSON"]),
        (["train", "DATA", "--dim", "0"], ["dim must be a whole number from 1"]),
        (["train", "DATA", "--seed", "9" * 30], ["seed must lie below 2^63"]),
        (["train", "DATA", "--device", "tpu"], ["--device", "auto", "cpu", "cuda"]),
        (["train", "DATA", "--noise", "0-0.5-1"], ["--noise", "LOW-HIGH"]),
        (["train", "DATA", "--model.width", "0"], ["width must be a whole number from 1"]),
        (["train", "DATA", "--model.levels", "few"], ["--model.levels"]),
        (["train", "DATA", "--max-bad", "2"], ["max_bad must lie in [0, 1]"]),
        (["train", "DATA", "--preset", "demo", "--config", "x"], ["choose one"]),
        (["denoise", "--bogus", "-m", "RUN"], ["Unknown option: --bogus"]),
        (["score", "-m", "RUN"], ["INPUTS"]),
        (["train", "DATA", "--resume"], ["nothing to resume here"]),
        (["train", "DATA", "--resume", "--model.width", "3"], ["--resume takes the settings of the run"]),
        (["train", "DATA", "--resume", "--lr", "0.1"], ["--resume takes the settings of the run"]),
        (["train", "DATA", "-o", "RUN"], ["already holds a run", "--resume"]),
        (["sample", "-m", "RUN", "-n", "0"], ["-n"]),
        (["sample", "-m", "RUN", "--device", "tpu"], ["--device", "auto"]),
        (
            ["evaluate", "DATA", "-m", "RUN", "--metrics", "beauty"],
            ["--metrics: beauty: choose from reconstruction"],
        ),
        (["sample", "-m", "RUN", "-o", "a-file"], ["a-file: File exists"]),
    ],
)
def test_wrong_requests_are_code_2(mfimage, tiny_run, bumps, arguments, words):
    Path("a-file").touch()
    names = {"DATA": bumps, "RUN": tiny_run}
    assert fails(mfimage(*(names.get(argument, argument) for argument in arguments)), 2, *words)


def test_bad_data_is_code_3(mfimage, short, tiny_run, photos):
    Path("empty").mkdir()
    shutil.copytree(photos, "broken")
    for index in range(10):
        Path(f"broken/bad{index}.png").write_bytes(b"no picture")
    np.save("few.npy", draw_bumps(3))
    for verb in ("train", "score", "denoise", "evaluate"):
        model = [] if verb == "train" else ["-m", tiny_run]
        assert fails(mfimage(verb, "empty", *model), 3, "empty: holds no images")
        assert fails(mfimage(verb, "nowhere", *model), 3, "nowhere: no such file or folder")
        assert fails(mfimage(verb, "broken", *model), 3, "files cannot be used", "broken/bad")
    assert fails(mfimage("train", "few.npy", "--config", short), 3, "too few")
    assert mfimage("score", "broken", "-m", tiny_run, "--max-bad", 0.5, "-q")[0] == 0
    assert fails(mfimage("score", photos, "-m", tiny_run, "--max-pixels", 10), 3, "8×8 pixels are more than")


def test_bad_models_are_code_4(mfimage, tiny_run, bumps):
    shutil.copytree(tiny_run / "model", "damaged")
    weights = Path("damaged/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-50])
    Path("unfinished/checkpoints").mkdir(parents=True)
    for verb in (["sample"], ["denoise", bumps], ["score", bumps], ["evaluate", bumps]):
        assert fails(mfimage(*verb), 4, "runs/latest: no such directory")
        assert fails(mfimage(*verb, "-m", "."), 4, ".: no model here", "model.safetensors")
        assert fails(mfimage(*verb, "-m", "damaged"), 4, "damaged/model.safetensors: damaged")
        assert fails(mfimage(*verb, "-m", "unfinished"), 4, "not finished", "--resume")


def test_divergence_is_code_5(mfimage, short, bumps, monkeypatch):
    from mfimage import losses

    exact = losses.reconstruction
    monkeypatch.setattr(
        losses,
        "reconstruction",
        lambda chart, x, context: exact(chart, x) * (float("nan") if torch.is_grad_enabled() else 1),
    )
    result = mfimage("train", bumps, "-o", "run", "--config", short, "-q")
    assert fails(result, 5, "at step 0 (batch 0: 32 rows", "run/checkpoints/refinement-00000000.safetensors")


def raising(error):
    def fail(*_, **__):
        raise error

    return fail


@pytest.mark.parametrize(
    ("target", "error"),
    [
        ("PIL.Image.Image.save", OSError(errno.ENOSPC, "No space left on device")),
        ("pathlib.Path.mkdir", OSError(errno.ENOSPC, "No space left on device", "out")),
        ("mfimage.models.ManifoldFlow.sample", MemoryError()),
        ("mfimage.models.ManifoldFlow.sample", torch.OutOfMemoryError("CUDA out of memory. Tried")),
        ("mfimage.models.ManifoldFlow.sample", RuntimeError("DefaultCPUAllocator: can't allocate memory: 9")),
    ],
)
def test_a_full_disk_or_memory_is_code_6(mfimage, tiny_run, monkeypatch, target, error):
    monkeypatch.setattr(target, raising(error))
    word = "No space left" if isinstance(error, OSError) else "out of memory"
    assert fails(mfimage("sample", "-m", tiny_run, "-o", "out"), 6, word)


@pytest.mark.parametrize(
    ("target", "error"),
    [
        ("mfimage.files.save_file", SafetensorError("I/O error: No space left on device (os error 28)")),
        ("os.replace", OSError(errno.ENOSPC, "No space left on device")),
    ],
)
def test_a_disk_that_fills_while_training_is_code_6(mfimage, short, bumps, monkeypatch, target, error):
    monkeypatch.setattr(target, raising(error))
    result = mfimage("train", bumps, "-o", "run", "--config", short, "-q")
    assert fails(result, 6, "cannot be written", "No space left")
    assert not list(Path("run").rglob("*.tmp"))


def test_an_internal_error_is_code_1_and_shows_its_traceback_when_asked(mfimage, tiny_run, monkeypatch):
    monkeypatch.setattr("mfimage.pretrained.from_pretrained", raising(ZeroDivisionError("an accident")))
    command = ["sample", "-m", tiny_run]
    assert fails(mfimage(*command), 1, "ZeroDivisionError: an accident (an internal error; -v shows")
    for flag in ("-v", "--verbose", "-qv"):
        code, _, err = mfimage(*command, flag)
        assert code == 1
        assert "Traceback (most recent call last)" in err
    assert "Traceback" not in mfimage(*command)[2]


def test_a_foreseen_error_shows_its_traceback_only_when_asked(mfimage):
    assert fails(mfimage("score", "nowhere", "-m", "nowhere"), 4)
    assert "Traceback" in mfimage("score", "nowhere", "-m", "nowhere", "-v")[2]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_training_has_its_code(mfimage, bumps, monkeypatch, number, code):
    monkeypatch.setattr("mfimage.training.train", raising(Interrupted(number, "saved step 3")))
    assert fails(mfimage("train", bumps), code, "mfimage: saved step 3")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_before_there_is_anything_to_save_has_its_code(mfimage, bumps, monkeypatch, number, code):
    monkeypatch.setattr("mfimage.training.train", lambda *_, **__: signal.raise_signal(number))
    assert fails(mfimage("train", bumps), code)


def test_only_the_first_of_several_processes_speaks_on_stdout(mfimage, tiny_run, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert mfimage("sample", "-m", tiny_run, "-n", 1, "-q")[:2] == (0, "")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(mfimage, verb):
    code, out, _ = mfimage(verb, "--help")
    assert code == 0
    flags = (
        ("--json", "--verbose")
        if verb in ("compare", "pack")
        else ("--device", "--json", "--quiet", "--verbose")
    )
    assert all(flag in out for flag in flags)


def test_help_lists_the_verbs_and_the_exit_codes(mfimage):
    code, out, _ = mfimage("--help")
    assert code == 0
    assert all(verb in out for verb in VERBS)
    assert "Exit codes: 0 done" in out


def test_without_arguments_the_help_is_shown(mfimage):
    assert mfimage()[0] == 2


def test_the_module_is_the_command(mfimage, tiny_run, photos):
    arguments = ["score", f"{photos}/*.png", "-m", tiny_run, "--json"]
    process = run_command(*arguments)
    out, err = process.communicate(timeout=300)
    assert (process.returncode, out, err) == mfimage(*arguments)


def test_json_has_no_infinities():
    text = console.json_text({"psnr": float("inf"), "nested": [float("nan"), Skipped("a", "b"), Path("p")]})
    assert json.loads(text) == {"psnr": None, "nested": [None, {"path": "a", "reason": "b"}, "p"]}


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
    assert "[default: 128]" in out


def test_the_version_is_told(mfimage):
    assert mfimage("--version")[:2] == (0, f"{__version__}\n")


def test_completion_can_be_installed(mfimage, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))  # whose .bashrc is told of it
    assert mfimage("--install-completion", "--shell", "bash", "--output", "completion.sh")[0] == 0
    assert "interpolate" in Path("completion.sh").read_text()


def test_paths_and_options_come_in_any_order(mfimage, tiny_run, photos):
    paths = sorted(map(str, photos.glob("*.png")))[:2]
    one = mfimage("score", *paths, "-m", tiny_run, "--json")
    assert mfimage("score", paths[0], "--json", "-m", tiny_run, paths[1]) == one


def test_nobody_who_listens_is_no_failure_with_a_traceback(tiny_run, photos):
    process = run_command("score", photos, "-m", tiny_run)
    process.stdout.close()
    assert process.wait(timeout=300) == 1
    assert process.stderr.read() == ""
    process.stderr.close()


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
