"""What the benchmarks share: the command line, the last line of JSON, and training by the CPU clock."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import Tensor, nn

from mfimage import from_pretrained
from mfimage.algorithms import ALGORITHMS
from mfimage.checkpoints import Snapshots
from mfimage.config import Config
from mfimage.datasets import ImageSet, load
from mfimage.datasets.loading import Data
from mfimage.fit import shuffled
from mfimage.run import environment
from mfimage.training import train

SHARED = Path(os.environ.get("MFIMAGE_SHARED", "../shared")) / "data"

BUDGETS = {"fashion-mnist": 480.0, "mnist": 480.0, "celeba": 600.0, "quick": 2.0}  # CPU seconds a model


class LeftOutError(Exception):
    """Why a row or a set is not measured."""


def training_config(name: str, quick: bool) -> Config:
    """Settings of the models that several benchmarks share, for `trained` by the clock of `BUDGETS`."""
    if quick:
        model = {"width": 4, "hidden": 16, "density_steps": 2, "density_width": 16, "noise_width": 2}
        return Config(dim=8, batch_size=32, warmup=5, validation=50, model=model)
    return Config(dim=64 if name == "celeba" else 32, validation=500)


def start(description: str) -> bool:
    """Read the command line, go to one thread, and return whether --quick was given."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="seconds, for a look")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return parser.parse_args().quick


def say(message: str) -> None:
    """Talk on stderr."""
    print(message, file=sys.stderr, flush=True)


def put(quick: bool, **results: Any) -> None:
    """Print the results as one JSON object, the last line of stdout."""
    machine = environment()
    print(
        json.dumps(
            {
                **results,
                "quick": quick,
                "machine": machine["processor"],
                "torch": machine["packages"]["torch"],
            }
        )
    )


def celeba() -> tuple[ImageSet, ImageSet] | None:
    """Load CelebA faces 64 × 64 (train, validation) where the shared folder has them, else None."""
    halves = [SHARED / f"celeba64_train_{half}.zip" for half in "ab"]
    if not all(path.exists() for path in halves):
        say(f"no CelebA in {SHARED} (MFIMAGE_SHARED): without its figures")
        return None
    return load(halves, "all"), load(SHARED / "celeba64_valid.zip", "all")


def train_for(
    seconds: float,
    module: nn.Module,
    loss: Callable[[Any, Tensor], Tensor],
    images: ImageSet,
    lr: float,
    batch_size: int,
    clip: float = 200.0,
    keep: Path | None = None,
) -> tuple[int, float]:
    """Train a module for CPU seconds; return steps taken and seconds spent.

    The steps are those of `mfimage.fit.fit` (AdamW, warm-up, cosine to zero, clipping), but the schedule
    runs with this process's CPU clock, so that a busy machine cannot overdraw the budget. In a file `keep`
    its state is written every 200 steps, from which a training that was broken off goes on.
    """
    rows = shuffled(len(images), batch_size, seed=0)
    optimiser = torch.optim.AdamW(module.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=0.0)
    began, step = time.process_time(), 0
    if keep and keep.exists():
        state = torch.load(keep, weights_only=True)
        module.load_state_dict(state["module"])
        optimiser.load_state_dict(state["optimiser"])
        began, step = began - state["spent"], state["step"]
    while (spent := time.process_time() - began) < seconds:
        done = spent / seconds
        optimiser.param_groups[0]["lr"] = (
            lr * min(1.0, 20 * done + 0.01) * 0.5 * (1 + math.cos(math.pi * done))
        )
        optimiser.zero_grad(set_to_none=True)
        loss(module.train(), images.batch(rows(step))).backward()
        nn.utils.clip_grad_norm_(module.parameters(), clip)
        optimiser.step()
        step += 1
        if step % 200 == 0:
            say(f"  step {step}, {spent:.0f} CPU-seconds")
            if keep:
                state = {"module": module.state_dict(), "optimiser": optimiser.state_dict()}
                torch.save({**state, "spent": spent, "step": step}, keep)
    module.eval()
    return step, spent


def trained_net(
    net: nn.Module,
    loss: Callable[[Any, Tensor], Tensor],
    images: ImageSet,
    seconds: float,
    folder: Path,
    lr: float,
    batch_size: int,
    finish: Callable[[Any], None] = lambda net: None,
) -> float:
    """Train a network of others by `train_for`, or read it; return the CPU seconds it took.

    A training that was broken off goes on. `finish` is given the network when it ends.
    """
    weights, spent, keep = (folder / name for name in ("weights.pt", "cpu_seconds.json", "broken_off.pt"))
    if not spent.exists():
        folder.mkdir(parents=True, exist_ok=True)
        steps, took = train_for(seconds, net, loss, images, lr, batch_size, clip=10.0, keep=keep)
        say(f"{folder.name}: {steps} steps, {took:.0f} CPU-seconds")
        finish(net)
        torch.save(net.state_dict(), weights)
        spent.write_text(json.dumps(took))
        keep.unlink(missing_ok=True)
    net.load_state_dict(torch.load(weights, weights_only=True))
    net.eval()
    return json.loads(spent.read_text())


def trained(images: Data, config: Config, folder: Path, seconds: float | None = None) -> tuple[Any, float]:
    """Train by a configuration, or read what was trained; with the CPU seconds it took.

    Of a run that was interrupted, what is kept of it counts by the clock, which is more.

    Args:
        images: Training images.
        config: Settings.
        folder: Of the run; an interrupted one is resumed.
        seconds: That the whole training may take by the clock, on one thread; its steps without.
    """
    spent = folder / "cpu_seconds.json"
    if not spent.exists():
        begun = (folder / "checkpoints").is_dir()
        if seconds is not None and not begun:
            config = config.with_(time=seconds)
        names, began = {phase.name for phase in ALGORITHMS[config.algorithm].phases}, time.process_time()
        kept = [Snapshots(folder / "checkpoints", name).progress() for name in names if begun]
        train(images, folder, None if begun else config, device="cpu", resume=begun)
        before = sum(float(one.get("seconds", 0.0)) for one in kept)
        spent.write_text(json.dumps(before + time.process_time() - began))
    return from_pretrained(folder), json.loads(spent.read_text())
