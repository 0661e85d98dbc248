import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny import ONE_THREAD, TINY, draw_bumps, run_command

from mfimage import Config, from_pretrained, load, train
from mfimage.checkpoints import Snapshots
from mfimage.config import Reading
from mfimage.errors import DataError, DivergedError, UsageError
from mfimage.eval import PCA
from mfimage.outputs import LOCK, OWNER, owned
from mfimage.pretrained import weights_hash, write_calibration
from mfimage.run import Run, trim_stats
from mfimage.settings import read_settings
from mfimage.training import train_or_reuse

SHORT = replace(TINY, steps=4, density_steps=4, every=2)


def stats(directory):
    lines = (directory / "stats.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def curve(directory):
    """What a run recorded, without the times, which differ."""
    return [{k: v for k, v in line.items() if k != "images_per_second"} for line in stats(directory)]


def same_tensors(first, second):
    a, b = load_file(first), load_file(second)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_writes_what_it_promises(tiny_run, bumps):
    names = {path.name for path in tiny_run.iterdir()}
    promised = {"config.json", "command.txt", "environment.json", "data.json", "stats.jsonl", "tensorboard"}
    promised |= {"report.html", "decisions.json"}
    measured = {"metrics.json", "evaluation.html"}  # where a test evaluated this run before
    assert names - measured == promised | {"checkpoints", "model", "pictures"}
    assert read_settings(Config, tiny_run / "config.json") == TINY
    data = json.loads((tiny_run / "data.json").read_text())
    assert data["data"] == str(bumps)
    assert data["sources"] == [str(bumps)]
    assert data["sha256"] == load(bumps, "train").summary()["sha256"]
    environment = json.loads((tiny_run / "environment.json").read_text())
    assert environment["packages"]["torch"] == torch.__version__
    model = {path.name for path in (tiny_run / "model").iterdir()}
    assert model == {"calibration.json", "config.json", "model.safetensors"}
    assert any((tiny_run / "tensorboard").glob("events.*"))
    assert not list(tiny_run.rglob("*.tmp"))


def test_three_checkpoints_and_the_best_of_each_phase_stay(tiny_run):
    assert sorted(path.name for path in (tiny_run / "checkpoints").iterdir()) == sorted(
        [f"{name}-{step:08d}.safetensors" for name in ("manifold", "refinement") for step in (40, 50, 60)]
        + [f"density-{step:08d}.safetensors" for step in (60, 70, 80)]
        + [f"best-{name}.safetensors" for name in ("manifold", "refinement", "density")]
    )


def test_the_error_is_watched_and_falls(tiny_run):
    for phase, steps in (("manifold", 60), ("refinement", 60), ("density", 80)):
        lines = [line for line in stats(tiny_run) if line["phase"] == phase]
        assert [line["step"] for line in lines] == list(range(10, steps + 1, 10))
        watched = [line["validation"] for line in lines]
        assert watched[-1] < watched[0]
        assert all(line["images_per_second"] > 0 for line in lines)


def test_pictures_are_drawn_while_it_trains(tiny_run):
    names = {path.name for path in (tiny_run / "pictures").iterdir()}
    steps = {"manifold": 60, "refinement": 60, "density": 80}
    assert names == {f"{phase}-{s:08d}.png" for phase, n in steps.items() for s in range(10, n + 1, 10)}
    with Image.open(tiny_run / "pictures" / "refinement-00000060.png") as sheet:
        assert sheet.size == (16 * 10 + 2, 2 * 10 + 2)


def test_the_manifold_reconstructs_unseen_images_better_than_pca(model, bumps):
    training, unseen = (load(bumps, split).batch(slice(None)) for split in ("train", "test"))
    with torch.no_grad():
        ours = (model.project(unseen) - unseen).square().mean()
    pca = PCA.fit(training, 2).project(unseen)
    assert ours < 0.5 * (pca - unseen).square().mean()


def test_the_model_is_that_of_the_best_validation(tiny_run):
    model = load_file(tiny_run / "model" / "model.safetensors")
    for phase, part in (("refinement", "chart"), ("density", "density")):
        best = load_file(tiny_run / "checkpoints" / f"best-{phase}.safetensors")
        weights = {n.removeprefix("module."): t for n, t in best.items() if n.startswith("module.")}
        assert weights
        moved = {name for name, tensor in weights.items() if not torch.equal(model[f"{part}.{name}"], tensor)}
        assert moved == ({"multiscale.offset"} if phase == "refinement" else set())  # centred in the end


def test_refinement_begins_with_the_best_of_the_manifold_phase(bumps, tmp_path):
    train(bumps, tmp_path / "run", SHORT, device="cpu")
    saved = tmp_path / "run" / "checkpoints"
    best, start = (load_file(saved / f"{n}.safetensors") for n in ("best-manifold", "refinement-00000000"))
    weights = {n.removeprefix("module."): t for n, t in best.items() if n.startswith("module.")}
    assert weights
    assert all(torch.equal(start[f"module.subspace.dense.{name}"], t) for name, t in weights.items())


def test_a_chart_of_dense_pairs_alone_has_nothing_to_refine(bumps, tmp_path):
    config = replace(SHORT, model={**SHORT.model, "steps": 0})
    train(bumps, tmp_path / "run", config, device="cpu")
    assert {line["phase"] for line in curve(tmp_path / "run")} == {"manifold", "density"}
    train(bumps, tmp_path / "run", replace(config, density_steps=8), resume=True, device="cpu")
    train(bumps, tmp_path / "whole", replace(config, density_steps=8), device="cpu")
    first, second = (load_file(tmp_path / n / "model/model.safetensors") for n in ("run", "whole"))
    charts = [name for name in first if name.startswith("chart.")]
    assert charts
    assert all(torch.equal(first[name], second[name]) for name in charts)


def test_train_returns_what_it_saved(bumps, tmp_path):
    model = train(bumps, tmp_path / "run", SHORT, device="cpu")
    assert not model.training
    assert weights_hash(model) == weights_hash(from_pretrained(tmp_path / "run"))


def test_another_seed_gives_another_model(bumps, tmp_path):
    first, second = (train(bumps, tmp_path / str(s), replace(SHORT, seed=s), device="cpu") for s in (0, 1))
    assert weights_hash(first) != weights_hash(second)


def test_the_global_random_state_plays_no_part(bumps, tmp_path):
    hashes = set()
    for seed in (1, 2):
        torch.manual_seed(seed)
        hashes.add(weights_hash(train(bumps, tmp_path / str(seed), SHORT, device="cpu")))
    assert len(hashes) == 1


def test_trainings_in_threads_are_those_of_one(bumps, tmp_path):
    config = replace(SHORT, model={**SHORT.model, "dropout": 0.4})

    def trained(seed):
        outdir = tmp_path / threading.current_thread().name / str(seed)
        return weights_hash(train(bumps, outdir, replace(config, seed=seed), device="cpu"))

    alone, state, interval = (
        [trained(seed) for seed in range(3)],
        torch.get_rng_state(),
        sys.getswitchinterval(),
    )
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(3) as pool:
            assert list(pool.map(trained, range(3))) == alone
    finally:
        sys.setswitchinterval(interval)
    assert torch.equal(torch.get_rng_state(), state)


def test_images_in_memory_are_taken(bumps, tmp_path):
    model = train(load(bumps, "all"), tmp_path / "run", SHORT, device="cpu")
    assert model.shape == (1, 8, 8)


def test_a_used_directory_is_refused_and_left_alone(bumps, tiny_run):
    before = {path: path.stat().st_mtime_ns for path in tiny_run.rglob("*")}
    with pytest.raises(UsageError, match=r"already holds a run: choose another --outdir, or --resume it"):
        train(bumps, tiny_run, SHORT, device="cpu")
    assert {path: path.stat().st_mtime_ns for path in tiny_run.rglob("*")} == before


def test_resuming_nothing_is_an_error(bumps, tmp_path):
    with pytest.raises(UsageError, match="nothing to resume here"):
        train(bumps, tmp_path / "none", resume=True)
    assert not (tmp_path / "none").exists()


def test_resuming_with_other_images_is_an_error(tmp_path, bumps):
    np.save(tmp_path / "other.npy", draw_bumps(220, seed=1))
    train(bumps, tmp_path / "run", SHORT, device="cpu")
    with pytest.raises(DataError, match=r"other\.npy: not the images that the run in .* began with"):
        train(tmp_path / "other.npy", tmp_path / "run", resume=True, device="cpu")


@pytest.mark.parametrize("count", [3, 5])
def test_too_few_images_are_an_error(tmp_path, count):
    np.save(tmp_path / "few.npy", draw_bumps(count))
    with pytest.raises(DataError, match=r"too few|cannot span"):
        train(load(tmp_path / "few.npy", "all"), tmp_path / "run", replace(SHORT, dim=4), device="cpu")
    assert not (tmp_path / "run").exists()


def test_a_dimension_beyond_the_pixels_is_an_error(tmp_path, bumps):
    with pytest.raises((UsageError, DataError), match="dim"):
        train(bumps, tmp_path / "run", replace(SHORT, dim=64), device="cpu")


@pytest.mark.parametrize("phases", [{"steps": 0}, {"density_steps": 0}, {"steps": 0, "density_steps": 0}])
def test_a_phase_may_be_left_out(bumps, tmp_path, phases):
    model = train(bumps, tmp_path / "run", replace(SHORT, **phases), device="cpu")
    assert model.sample(2).isfinite().all()
    assert weights_hash(from_pretrained(tmp_path / "run")) == weights_hash(model)


def test_one_dimension_and_odd_sizes_train(tmp_path):
    images = draw_bumps(60, side=9)[:, :, :7]
    np.save(tmp_path / "odd.npy", images)
    model = train(tmp_path / "odd.npy", tmp_path / "run", replace(SHORT, dim=1, batch_size=500), device="cpu")
    assert model.sample(3).shape == (3, 1, 9, 7)


def test_colour_trains(tmp_path):
    np.save(tmp_path / "colour.npy", np.repeat(draw_bumps(60)[..., None], 3, -1) // (1, 2, 3))
    model = train(
        tmp_path / "colour.npy", tmp_path / "run", SHORT, device="cpu", reading=Reading(value_range=(0, 255))
    )
    assert model.shape == (3, 8, 8)


def test_bfloat16_trains_and_saves_float32(bumps, tmp_path):
    model = train(bumps, tmp_path / "run", replace(TINY, precision="bf16", density_steps=4), device="cpu")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    watched = [line["validation"] for line in stats(tmp_path / "run") if "validation" in line]
    assert watched[5] < 0.6 * watched[0]


def test_a_diverging_run_names_its_last_good_checkpoint(bumps, tmp_path, monkeypatch):
    from mfimage import losses

    exact, calls = losses.reconstruction, []

    def diverging(chart, x, context):
        calls.extend([1] * torch.is_grad_enabled())
        return exact(chart, x) * (float("nan") if len(calls) > 3 else 1)

    monkeypatch.setattr(losses, "reconstruction", diverging)
    with pytest.raises(DivergedError, match=r"at step 3 .*refinement-00000002\.safetensors"):
        train(bumps, tmp_path / "run", SHORT, device="cpu")
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.parametrize("name", ["manifold", "refinement"])
def test_a_run_that_crashed_between_checkpoints_is_resumed_from_the_last(
    bumps, tiny_run, tmp_path, monkeypatch, name
):
    scalars = Run.scalars

    def crash(run, phase, step, values):
        scalars(run, phase, step, values)
        if (phase, step) == (name, 50):
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "scalars", crash)
    with pytest.raises(KeyboardInterrupt):
        train(bumps, tmp_path / "run", TINY, device="cpu")
    (tmp_path / "run" / "checkpoints" / f"{name}-00000050.safetensors").unlink()  # as if killed before
    monkeypatch.undo()
    assert curve(tmp_path / "run")[-1]["step"] == 50
    train(bumps, tmp_path / "run", resume=True, device="cpu")
    assert same_tensors(tmp_path / "run/model/model.safetensors", tiny_run / "model/model.safetensors")
    assert curve(tmp_path / "run") == curve(tiny_run)


def test_a_kill_right_after_a_checkpoint_leaves_nothing_off_the_record(bumps, tmp_path, monkeypatch):
    save, config = Snapshots.save, replace(TINY, steps=20, density_steps=10, precision="no")

    def kill(snapshots, module, optimiser, progress, average):
        save(snapshots, module, optimiser, progress, average)
        if (snapshots.phase, progress.step) == ("refinement", 10):
            raise KeyboardInterrupt

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(bumps, whole, config, device="cpu")
    monkeypatch.setattr(Snapshots, "save", kill)
    with pytest.raises(KeyboardInterrupt):
        train(bumps, broken, config, device="cpu")
    monkeypatch.undo()
    train(bumps, broken, resume=True, device="cpu")
    ours, theirs = (
        {path.name: path.read_bytes() for path in (run / "pictures").iterdir()} for run in (broken, whole)
    )
    assert len(ours) == 5
    assert ours == theirs
    assert curve(broken) == curve(whole)


def test_a_run_has_one_writer(bumps, tmp_path):
    run = tmp_path / "run"

    def refused(**options):
        with ThreadPoolExecutor(1) as other:
            error = other.submit(train, bumps, run, device="cpu", **options).exception()
        return isinstance(error, UsageError) and "is writing there" in str(error)

    with owned(run):
        assert refused(config=SHORT)
        assert sorted(os.listdir(run)) == [LOCK, OWNER]
    train(bumps, run, SHORT, device="cpu")
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    with owned(run):
        assert refused(resume=True)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_results_among_the_images_are_refused(tmp_path):
    (tmp_path / "photos").mkdir()
    for index, image in enumerate(draw_bumps(20)):
        Image.fromarray(image).save(tmp_path / "photos" / f"{index}.png")
    with pytest.raises(UsageError, match="whose images are read"):
        train(tmp_path / "photos", tmp_path / "photos" / "run", SHORT, device="cpu")
    (tmp_path / "photos").rename(tmp_path / "pictures")  # as a run calls what it draws
    with pytest.raises(UsageError, match="whose images are read"):
        train(tmp_path / "pictures", tmp_path, SHORT, device="cpu")
    assert [path.suffix for path in tmp_path.rglob("*") if path.is_file()] == [".png"] * 20


def test_a_folder_in_which_a_run_never_began_is_trained_in(bumps, tmp_path):
    (tmp_path / "decisions.json").write_text("[]")  # as earlier versions left it when they were killed there
    (tmp_path / "config.json").write_text(json.dumps(asdict(SHORT)))
    train(bumps, tmp_path, SHORT, device="cpu")
    assert Run(tmp_path).finished


def test_resuming_a_finished_run_changes_nothing(bumps, tmp_path):
    train(bumps, tmp_path / "run", SHORT, device="cpu")
    model = from_pretrained(tmp_path / "run")
    write_calibration(tmp_path / "run" / "model", {**model.measured, "detector": {"threshold": 1.0}})
    patterns = ("*.safetensors", "calibration.json")
    files = {p: p.read_bytes() for pattern in patterns for p in (tmp_path / "run").rglob(pattern)}
    lines = curve(tmp_path / "run")
    train(bumps, tmp_path / "run", resume=True, device="cpu")
    assert {p: p.read_bytes() for pattern in patterns for p in (tmp_path / "run").rglob(pattern)} == files
    assert curve(tmp_path / "run") == lines


def test_a_run_that_is_given_more_steps_equals_one_that_was_planned_so_from_the_checkpoint_on(
    bumps, tmp_path
):
    config = replace(TINY, steps=20, density_steps=20)
    train(bumps, tmp_path / "short", config, device="cpu")
    shutil.copytree(tmp_path / "short", tmp_path / "planned")
    shutil.rmtree(tmp_path / "planned" / "model")
    planned = replace(config, steps=40, density_steps=30)
    (tmp_path / "planned" / "config.json").write_text(json.dumps(asdict(planned)))
    for name in ("refinement", "density"):
        for path in (tmp_path / "planned" / "checkpoints").glob(f"*{name}*"):
            path.unlink()
    lines = curve(tmp_path / "short")
    train(bumps, tmp_path / "short", planned, resume=True, device="cpu")
    train(bumps, tmp_path / "planned", resume=True, device="cpu")
    assert same_tensors(*(tmp_path / name / "model/model.safetensors" for name in ("short", "planned")))
    longer = curve(tmp_path / "short")
    assert longer[:2] == lines[:2]  # of the manifold; what was learned after it is of another manifold
    steps = [(line["phase"], line["step"]) for line in longer]
    learned = [(phase, s) for phase in ("manifold", "refinement") for s in (10, 20, 30, 40)]
    assert steps == learned + [("density", s) for s in (10, 20, 30)]
    assert Run(tmp_path / "short").config() == planned


def test_more_steps_for_the_density_leave_the_manifold_alone(bumps, tmp_path):
    config = replace(TINY, steps=20, density_steps=20)
    before = train(bumps, tmp_path / "run", config, device="cpu")
    longer = replace(config, density_steps=40)
    after = train(bumps, tmp_path / "run", longer, resume=True, device="cpu")
    assert weights_hash(before.chart) == weights_hash(after.chart)
    steps = [line["step"] for line in curve(tmp_path / "run") if line["phase"] == "density"]
    assert steps == [10, 20, 30, 40]
    with pytest.raises(UsageError, match="can only grow"):
        train(bumps, tmp_path / "run", config, resume=True, device="cpu")
    with pytest.raises(UsageError, match="keeps its settings, seed among them"):
        train(bumps, tmp_path / "run", replace(longer, seed=3), resume=True, device="cpu")


def wait_for_checkpoint(directory, phase, process, seconds=300):
    """Wait until a training process has saved more than the beginning of a phase."""
    limit = time.monotonic() + seconds
    while not set(directory.glob(f"{phase}-*.safetensors")) - {directory / f"{phase}-00000000.safetensors"}:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < limit, f"no {phase} checkpoint in {directory}"
        time.sleep(0.002)


@pytest.mark.parametrize(
    ("number", "code", "phase"), [(signal.SIGINT, 130, "manifold"), (signal.SIGTERM, 143, "density")]
)
def test_a_real_signal_saves_and_the_resumed_run_equals_an_unbroken_one(
    bumps, tiny_run, tmp_path, number, code, phase
):
    outdir, settings = tmp_path / "run", tmp_path / "tiny.json"
    settings.write_text(json.dumps(asdict(TINY)))
    process = run_command("train", bumps, "--outdir", outdir, "--config", settings, "--device", "cpu", "-q")
    wait_for_checkpoint(outdir / "checkpoints", phase, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, err
    assert out == ""
    assert f"mfimage: {number.name}: saved step " in err
    assert "Traceback" not in err
    assert not list(outdir.rglob("*.tmp"))
    train(bumps, outdir, resume=True, device="cpu")
    assert same_tensors(outdir / "model/model.safetensors", tiny_run / "model/model.safetensors")
    assert curve(outdir) == curve(tiny_run)


def test_two_processes_share_one_run_and_give_what_one_gives(bumps, tmp_path):
    outdir, settings = tmp_path / "two", tmp_path / "tiny.json"
    config = replace(TINY, steps=20, density_steps=10, every=10)
    settings.write_text(json.dumps(asdict(config)))
    launch = ["accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    command = ["-m", "mfimage", "train", bumps, "-o", outdir, "--config", settings, "--json"]
    done = subprocess.run(
        [sys.executable, "-m", *launch, *command],
        capture_output=True,
        text=True,
        env=ONE_THREAD,
        timeout=300,
        check=False,
    )
    if done.returncode and "Operation not permitted" in done.stderr:
        pytest.skip(f"processes cannot talk to each other here: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"model": str(outdir / "model"), "dim": 2, "shape": [1, 8, 8]}
    assert [line["step"] for line in stats(outdir)] == [10, 20, 10, 20, 10]
    train(bumps, tmp_path / "one", config, device="cpu")
    for ours, theirs in zip(curve(outdir), curve(tmp_path / "one"), strict=True):
        assert ours["validation"] == pytest.approx(theirs["validation"], rel=1e-3)


def test_statistics_after_the_checkpoint_are_dropped_and_half_lines_too(tmp_path):
    path = tmp_path / "stats.jsonl"
    lines = [{"phase": p, "step": s} for p in ("manifold", "density") for s in (10, 20, 30)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"phase": "dens')
    trim_stats(path, "density", 20)
    assert [json.loads(line) for line in path.read_text().splitlines()] == lines[:-1]
    trim_stats(tmp_path / "none.jsonl", "density", 20)
    assert not (tmp_path / "none.jsonl").exists()


def test_skipped_files_are_on_record(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for index, image in enumerate(draw_bumps(60)):
        Image.fromarray(image).save(folder / f"{index}.{'png' if index % 2 else 'jpg'}")
    (folder / "zero.png").touch()
    train(folder, tmp_path / "run", SHORT, device="cpu", reading=Reading(max_bad=0.1))
    data = json.loads((tmp_path / "run" / "data.json").read_text())
    assert data["skipped"] == 1
    assert data["skipped_first"] == [{"path": f"{folder}/zero.png", "reason": "is empty (0 bytes)"}]


def test_a_run_is_trained_once_and_goes_on_where_it_was_broken_off(bumps, tmp_path, monkeypatch):
    first = train_or_reuse(bumps, tmp_path / "run", SHORT, device="cpu")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    again = train_or_reuse(bumps, tmp_path / "run", SHORT, device="cpu")
    assert not again.training
    assert weights_hash(first) == weights_hash(again)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before
    shutil.rmtree(tmp_path / "run" / "model")
    assert weights_hash(train_or_reuse(bumps, tmp_path / "run", SHORT, device="cpu")) == weights_hash(first)
    with pytest.raises(UsageError, match="holds a run with other settings: choose another --outdir"):
        train_or_reuse(bumps, tmp_path / "run", replace(SHORT, seed=1), device="cpu")
    np.save(tmp_path / "other.npy", draw_bumps(220, seed=1))
    with pytest.raises(DataError, match="not the images that the run in"):
        train_or_reuse(tmp_path / "other.npy", tmp_path / "run", SHORT, device="cpu")
