"""A manifold that is easy to draw, settings that learn it in a second, and what such a run leaves."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from scipy.ndimage import gaussian_filter

from mfimage import Config, ModelConfig, build, from_pretrained, train
from mfimage.datasets import ImageSet
from mfimage.eval.features import quantise
from mfimage.experiments import EXPERIMENTS
from mfimage.experiments.experiment import Budget
from mfimage.experiments.vector_experiments import circle
from mfimage.noise import parse_noise
from mfimage.run import Run

ONE_THREAD = os.environ | {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]),
}
TINY = Config(
    dim=2,
    steps=60,
    density_steps=80,
    batch_size=32,
    lr=5e-3,
    warmup=10,
    weight_decay=0.05,
    precision="no",
    every=10,
    validation=20,
    flip=False,
    shift=0.0,
    noise=0.0,
    model={
        "width": 2,
        "noise_width": 4,
        "hidden": 32,
        "near": 24,
        "dropout": 0.0,
        "density_steps": 1,
        "density_width": 8,
    },
)
SMALL_MODEL = ModelConfig((1, 8, 8), 2, width=2, hidden=8, density_steps=1, density_width=8)
SHORT = replace(TINY, steps=4, density_steps=4, every=2)
VECTORS = Config(
    dim=1, steps=4, density_steps=4, batch_size=32, lr=3e-3, warmup=2, every=2, validation=20,
    model={"hidden": 8, "density_steps": 1, "density_width": 8},
)  # fmt: skip


def draw_bumps(count, side=8, seed=0):
    """(count, side, side) uint8: a bump of light that moves over the image, a curved surface in R^64."""
    random = np.random.default_rng(seed)
    y, x = random.uniform(0.3, 0.7, (2, count, 1, 1)) * (side - 1)
    rows, columns = np.mgrid[:side, :side]
    light = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * (side / 6) ** 2))
    return np.rint(255 * light).astype(np.uint8)


def bump_images(count, seed=9):
    """The same as (count, 1, 8, 8) float32 in [0, 1]."""
    return torch.from_numpy(draw_bumps(count, seed=seed))[:, None] / 255


def image_set(pixels, name="bumps"):
    """Grey images of bytes (N, H, W) as a set in memory."""
    return ImageSet(torch.from_numpy(pixels)[:, None], name, "all", ())


def initialised(config, data):
    """An untrained model that has seen its data."""
    model = build(config)
    model.initialise(data.batch(slice(None)))
    return model


def learn(data, directory, config=None, algorithm=None, **options):
    """Train on the CPU, by the algorithm of the configuration or by another one."""
    config = replace(config, algorithm=algorithm) if algorithm else config
    return train(data, directory, config, device="cpu", **options)


def learned(data, directory, config, algorithm=None, **options):
    """The same, and hold that the directory has what a run promises and the model that is returned."""
    model = learn(data, directory, config, algorithm, **options)
    names = {path.name for path in directory.iterdir()}
    assert {"config.json", "command.txt", "environment.json", "data.json", "model"} <= names
    assert json.loads((directory / "data.json").read_text())["sha256"] == data.summary()["sha256"]
    again = from_pretrained(directory)
    x, theta = data.x[:6], None if data.theta is None else data.theta[:6]
    with torch.no_grad():
        found = model.log_prob(x, theta)
        assert found.shape == (6,)
        assert found.isfinite().all()
        assert torch.equal(again.log_prob(x, theta), found)
        assert torch.equal(again.project(x, theta), model.project(x, theta))
    first, second = (m.sample(6, torch.Generator().manual_seed(1), context=theta) for m in (model, again))
    assert first.shape == x.shape
    assert first.isfinite().all()
    assert torch.equal(first, second)
    return model


def shrink_circle(monkeypatch, **changes):
    """Make the experiment of the circle one of seconds."""
    budgets = {"quick": Budget(100, VECTORS), "paper": Budget(150, VECTORS)}
    small = replace(circle(), **{"budgets": budgets, "test_count": 60, **changes})
    monkeypatch.setitem(EXPERIMENTS, "circle", lambda: small)


def write_images(folder, images):
    """Write images of bytes, or of floats in [0, 1], as FOLDER/0.png, 1.png, …, and return the folder."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(images):
        if image.dtype != np.uint8:
            image = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
        Image.fromarray(image).save(f"{folder}/{index}.png")
    return Path(folder)


def write_array(path, array):
    np.save(path, array)
    return path


def stats(directory, phase=None):
    """What a run recorded, in one phase or in all."""
    lines = [json.loads(line) for line in (directory / "stats.jsonl").read_text().splitlines()]
    return [line for line in lines if phase in (None, line["phase"])]


def curve(directory, phase=None):
    """The same without the times, which differ."""
    return [{k: v for k, v in line.items() if k != "images_per_second"} for line in stats(directory, phase)]


def watched(directory, phase=None):
    """The errors of held-out data."""
    return [line["validation"] for line in stats(directory, phase) if "validation" in line]


def model_weights(directory):
    return load_file(directory / "model" / "model.safetensors")


def same_tensors(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def changed_at(directory):
    """When each file below a directory was last written."""
    return {path: path.stat().st_mtime_ns for path in directory.rglob("*")}


def contents(directory, *patterns):
    """The bytes of each file below a directory, by its name in there."""
    found = {path for pattern in patterns or ("*",) for path in Path(directory).rglob(pattern)}
    return {str(path.relative_to(directory)): path.read_bytes() for path in found if path.is_file()}


@contextmanager
def broken_off(step, phase=None, error=None):
    """Break a training off once a step, of one phase or of any, is on record."""
    scalars, error = Run.scalars, error or KeyboardInterrupt()

    def stop(run, name, number, values):
        scalars(run, name, number, values)
        if number == step and phase in (None, name):
            raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "scalars", stop)
        with pytest.raises(type(error)) as stopped:
            yield
    assert stopped.value is error


def run_command(*arguments):
    """Start `python -m mfimage` on one thread, as a user would."""
    return subprocess.Popen(
        [sys.executable, "-m", "mfimage", *map(str, arguments)],
        env=ONE_THREAD,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def coloured(text, count=6, side=48, seed=0):
    """Bumps as wide as that, each tinted, with noise: (clean, noisy)."""
    x = torch.nn.functional.interpolate(bump_images(count), side, mode="bicubic").clamp(0, 1)
    x = x * torch.tensor([0.9, 0.7, 0.4]).view(3, 1, 1)
    return x, parse_noise(text).add(x, torch.Generator().manual_seed(seed))[0]


def smooth_pictures(count, channels=3, size=(16, 16), seed=0):
    """Clouds of 8 bits, (count, channels, *size) in [0, 1]."""
    noise = np.random.default_rng(seed).normal(size=(count, channels, *size))
    smooth = gaussian_filter(noise, (0, 0, 1.5, 1.5), mode="wrap")
    return quantise(torch.from_numpy(0.5 + 0.15 * smooth / smooth.std()))
