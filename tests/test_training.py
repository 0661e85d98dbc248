"""Training: what is learned, and what a run leaves."""

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny import (
    ONE_THREAD,
    SHORT,
    TINY,
    curve,
    draw_bumps,
    learn,
    model_weights,
    stats,
    watched,
    write_array,
)

from mfimage import Config, from_pretrained, load
from mfimage.config import Reading
from mfimage.errors import DataError, DivergedError, UsageError
from mfimage.eval import PCA
from mfimage.eval.verdict import learned_of, verdict_of
from mfimage.pretrained import weights_hash
from mfimage.settings import read_settings
from mfimage.training import hold_out


def trained_part(path):
    """The weights in a checkpoint, of the part of a model that its phase trains."""
    found = {n.removeprefix("module."): t for n, t in load_file(path).items() if n.startswith("module.")}
    assert found
    return found


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
    assert model == {"calibration.json", "config.json", "model.safetensors", "README.md", "samples.png"}
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
        lines = stats(tiny_run, phase)
        assert [line["step"] for line in lines] == list(range(10, steps + 1, 10))
        errors = [line["validation"] for line in lines]
        assert errors[-1] < errors[0]
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
    model = model_weights(tiny_run)
    for phase, part in (("refinement", "chart"), ("density", "density")):
        weights = trained_part(tiny_run / "checkpoints" / f"best-{phase}.safetensors")
        moved = {name for name, tensor in weights.items() if not torch.equal(model[f"{part}.{name}"], tensor)}
        assert moved == ({"multiscale.offset"} if phase == "refinement" else set())  # centred in the end


def test_images_of_the_split_valid_watch_the_error_where_there_is_a_test_split(tmp_path):
    images, three, two = draw_bumps(90), tmp_path / "three", tmp_path / "two"
    for folder, splits in ((three, {"train": 60, "val": 80, "test": 90}), (two, {"train": 60, "val": 80})):
        for split, last in splits.items():
            (folder / split).mkdir(parents=True)
            for i in range({"train": 0, "val": 60, "test": 80}[split], last):
                Image.fromarray(images[i]).save(folder / split / f"{i}.png")
    config = replace(SHORT, validation=15)
    run = tmp_path / "run"
    model, known = learn(three, run, config), load(three, "train")
    x = torch.from_numpy(images[60:80])[:, None] / 255
    training, held_out = hold_out(known, config, load(three, "valid"))
    assert (len(training), len(held_out)) == (60, 15)
    assert all((x == one).flatten(1).all(1).any() for one in held_out.batch(slice(None)))
    about = json.loads((run / "data.json").read_text())
    assert (about["count"], about["valid"]) == (60, held_out.summary()["sha256"])
    assert len(learned_of(known, model)) == 60
    y = held_out.batch(slice(None))
    error = (model.project(y).detach().clamp(0, 1) - y).double().square().sum((1, 2, 3)).mean()
    assert verdict_of(model).n == 15
    assert verdict_of(model).error == pytest.approx(float(error), rel=1e-5)
    again = learn(three, run, replace(config, density_steps=8), resume=True)
    assert weights_hash(again) != weights_hash(model)
    for i in range(60, 80):
        Image.fromarray(255 - images[i]).save(three / "val" / f"{i}.png")
    with pytest.raises(DataError, match=r"not the images that the run in .* began with"):
        learn(three, run, replace(config, density_steps=12), resume=True)

    model = learn(two, tmp_path / "tenth", config)  # the other split is for the test
    assert json.loads((tmp_path / "tenth" / "data.json").read_text())["valid"] is None
    assert len(learned_of(load(two, "train"), model)) == 54

    for i in range(60, 80):
        Image.fromarray(draw_bumps(1, side=12)[0]).save(three / "val" / f"{i}.png")
    with pytest.raises(DataError, match=r"train and valid are not alike: .*\(1, 8, 8\) and \(1, 12, 12\)"):
        learn(three, tmp_path / "other", config)


def test_refinement_begins_with_the_best_of_the_manifold_phase(bumps, tmp_path):
    learn(bumps, tmp_path, SHORT)
    saved = tmp_path / "checkpoints"
    best, start = (trained_part(saved / f"{n}.safetensors") for n in ("best-manifold", "refinement-00000000"))
    assert all(torch.equal(start[f"subspace.dense.{name}"], tensor) for name, tensor in best.items())


def test_a_chart_of_dense_pairs_alone_has_nothing_to_refine(bumps, tmp_path):
    config = replace(SHORT, model={**SHORT.model, "steps": 0})
    learn(bumps, tmp_path / "run", config)
    assert {line["phase"] for line in curve(tmp_path / "run")} == {"manifold", "density"}
    learn(bumps, tmp_path / "run", replace(config, density_steps=8), resume=True)
    learn(bumps, tmp_path / "whole", replace(config, density_steps=8))
    first, second = (model_weights(tmp_path / name) for name in ("run", "whole"))
    charts = [name for name in first if name.startswith("chart.")]
    assert charts
    assert all(torch.equal(first[name], second[name]) for name in charts)


def test_train_returns_what_it_saved(bumps, tmp_path):
    model = learn(bumps, tmp_path / "run", SHORT)
    assert not model.training
    assert weights_hash(model) == weights_hash(from_pretrained(tmp_path / "run"))


def test_another_seed_gives_another_model(bumps, tmp_path):
    first, second = (learn(bumps, tmp_path / str(s), replace(SHORT, seed=s)) for s in (0, 1))
    assert weights_hash(first) != weights_hash(second)


def test_the_global_random_state_plays_no_part(bumps, tmp_path):
    hashes = set()
    for seed in (1, 2):
        torch.manual_seed(seed)
        hashes.add(weights_hash(learn(bumps, tmp_path / str(seed), SHORT)))
    assert len(hashes) == 1


def test_trainings_in_threads_are_those_of_one(bumps, tmp_path):
    config = replace(SHORT, model={**SHORT.model, "dropout": 0.4})

    def trained(seed):
        outdir = tmp_path / threading.current_thread().name / str(seed)
        return weights_hash(learn(bumps, outdir, replace(config, seed=seed)))

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
    model = learn(load(bumps, "all"), tmp_path / "run", SHORT)
    assert model.shape == (1, 8, 8)


@pytest.mark.parametrize("count", [3, 5])
def test_too_few_images_are_an_error(tmp_path, count):
    few = write_array(tmp_path / "few.npy", draw_bumps(count))
    with pytest.raises(DataError, match=r"too few|cannot span"):
        learn(load(few, "all"), tmp_path / "run", replace(SHORT, dim=4))
    assert not (tmp_path / "run").exists()


def test_a_dimension_beyond_the_pixels_is_an_error(tmp_path, bumps):
    with pytest.raises((UsageError, DataError), match="dim"):
        learn(bumps, tmp_path / "run", replace(SHORT, dim=64))


@pytest.mark.parametrize("phases", [{"steps": 0}, {"density_steps": 0}, {"steps": 0, "density_steps": 0}])
def test_a_phase_may_be_left_out(bumps, tmp_path, phases):
    model = learn(bumps, tmp_path / "run", replace(SHORT, **phases))
    assert model.sample(2).isfinite().all()
    assert weights_hash(from_pretrained(tmp_path / "run")) == weights_hash(model)


def test_one_dimension_and_odd_sizes_train(tmp_path):
    odd = write_array(tmp_path / "odd.npy", draw_bumps(60, side=9)[:, :, :7])
    model = learn(odd, tmp_path / "run", replace(SHORT, dim=1, batch_size=500))
    assert model.sample(3).shape == (3, 1, 9, 7)


def test_colour_trains(tmp_path):
    images = np.repeat(draw_bumps(60)[..., None], 3, -1) // (1, 2, 3)
    colour = write_array(tmp_path / "colour.npy", images)
    model = learn(colour, tmp_path / "run", SHORT, reading=Reading(value_range=(0, 255)))
    assert model.shape == (3, 8, 8)


def test_bfloat16_trains_and_saves_float32(bumps, tmp_path):
    model = learn(bumps, tmp_path, replace(TINY, precision="bf16", density_steps=4))
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    errors = watched(tmp_path)
    assert errors[5] < 0.6 * errors[0]


def test_a_diverging_run_names_its_last_good_checkpoint(bumps, tmp_path, monkeypatch):
    from mfimage import losses

    exact, calls = losses.reconstruction, []

    def diverging(chart, x, *_):
        calls.extend([1] * torch.is_grad_enabled())
        return exact(chart, x) * (float("nan") if len(calls) > 3 else 1)

    monkeypatch.setattr(losses, "reconstruction", diverging)
    with pytest.raises(DivergedError, match=r"at step 3 .*refinement-00000002\.safetensors"):
        learn(bumps, tmp_path / "run", SHORT)
    assert not (tmp_path / "run" / "model").exists()


def test_two_processes_share_one_run_and_give_what_one_gives(bumps, tmp_path):
    outdir, settings = tmp_path / "two", tmp_path / "tiny.json"
    config = replace(TINY, steps=20, density_steps=10, every=10)
    settings.write_text(json.dumps(asdict(config)))
    launch = ["accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    command = ["-m", "mfimage", "train", bumps, "-o", outdir, "--config", settings, "--json"]
    started = [sys.executable, "-m", *launch, *command]
    done = subprocess.run(started, capture_output=True, text=True, env=ONE_THREAD, timeout=300, check=False)
    if done.returncode and "Operation not permitted" in done.stderr:
        pytest.skip(f"processes cannot talk to each other here: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"model": str(outdir / "model"), "dim": 2, "shape": [1, 8, 8]}
    assert [line["step"] for line in curve(outdir)] == [10, 20, 10, 20, 10]
    learn(bumps, tmp_path / "one", config)
    for ours, theirs in zip(curve(outdir), curve(tmp_path / "one"), strict=True):
        assert ours["validation"] == pytest.approx(theirs["validation"], rel=1e-3)
