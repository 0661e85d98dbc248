"""A manifold that is easy to draw, and settings with which it is learned in a second."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from mfimage import Config

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


def run_command(*arguments):
    """Start `python -m mfimage` on one thread, as a user would."""
    return subprocess.Popen(
        [sys.executable, "-m", "mfimage", *map(str, arguments)],
        env=ONE_THREAD,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
