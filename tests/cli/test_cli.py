import errno
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import fails, raising, size_of
from PIL import Image
from tiny import contents, draw_bumps, run_command

from mfimage import ManifoldFlow, __version__, console
from mfimage.datasets import Skipped

VERBS = (
    "train", "sample", "denoise", "calibrate", "score", "log-prob", "directions", "interpolate", "evaluate",
    "compare", "pack", "reproduce", "demo", "doctor",
)  # fmt: skip


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
        files.append(contents(name))
    assert sizes == {2, 128}  # whatever the batch size; 2 when the model is looked at
    assert files[0] == files[1] == files[2]
    assert len(set(files[0].values())) == 21
    mfimage("sample", "-m", tiny_run, "-n", 20, "-o", "other", "--seed", 1)
    assert Path("other/sheet.png").read_bytes() != files[0]["sheet.png"]


def test_denoise_writes_every_image_under_its_name(mfimage, tiny_run, photos):
    code, out, err = mfimage("denoise", photos, "-m", tiny_run, "-o", "clean", "--json")
    pairs = json.loads(out)["images"]
    assert code == 0
    assert re.search(r"^40 images in clean, \d+ left as they are", err, re.M)  # they are clean
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
    assert code == 0
    assert err == "note: 2 of 4 images lose their colour\n"
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
        (["train", "DATA", "--value-range", "nan,1"], ["--value-range: nan,1: LOW,HIGH"]),
        (["train", "DATA", "--size", "1e20"], ["--size"]),
        (["train", "DATA", "--dim", "9" * 30], ["dim must be at most 65,536"]),
        (["train", "DATA", "--batch-size", "9" * 30], ["batch_size must be at most"]),
        (["train", "DATA", "--model.bends", "1000000"], ["bends must be at most 64"]),
        (["sample", "-m", "RUN", "-n", "9" * 30], ["-n"]),
        (["score", "DATA", "-m", "RUN", "--batch-size", "9" * 30], ["--batch-size"]),
        (["calibrate", "DATA", "-m", "RUN", "--alpha", "1e-320"], ["alpha lies between 0 and 1"]),
        (["calibrate", "DATA", "-m", "RUN", "--alpha", "nan"], ["alpha lies between 0 and 1"]),
        (["train", "DATA", "--value-range=-1e308,1e308"], ["value range"]),
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
        (["score", "-m", "RUN"], ["name images, - for a list on standard input, or a folder to --watch"]),
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
        (["sample", "-m", "RUN", "-o", "a-file"], ["a-file: a folder is needed", "is a file"]),
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
    process = run_command("score", photos, "-m", tiny_run, "-q")
    process.stdout.close()
    assert process.wait(timeout=300) == 1
    assert process.stderr.read() == ""
    process.stderr.close()
