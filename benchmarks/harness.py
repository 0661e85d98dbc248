"""What the benchmarks share: the command line, the last line of JSON, and training by the CPU clock."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from mfimage.datasets import ImageSet, load
from mfimage.fitting import Schedule, fit, shuffled
from mfimage.runs import environment
from mfimage.snapshots import Snapshots

SHARED = Path(os.environ.get("MFIMAGE_SHARED", "../shared")) / "data"


def start(description: str) -> bool:
    """Read the command line, go to one thread, and return whether --quick was given."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="a minute or two, for a look")
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
) -> tuple[int, float]:
    """Train a module with a full schedule that fits into CPU seconds; return steps taken and seconds spent.

    What a step costs is measured first on runs of 4 and 24 steps, which are undone; a seventh stays in
    hand, because later steps can cost more.
    """
    accelerator = Accelerator(cpu=True)
    held_out, training = images.subset(range(1000)), images.subset(range(1000, len(images)))
    rows = shuffled(len(training), batch_size, seed=0)

    @torch.no_grad()
    def validate() -> float:
        return sum(float(loss(module, x)) * len(x) for x in held_out.batches(250)) / len(held_out)

    def run(steps: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            began = time.process_time()
            schedule = Schedule(steps, lr, warmup=min(100, steps // 4), every=max(1, steps // 4))
            fit(module, loss, lambda s: training.batch(rows(s)), validate, schedule,
                Snapshots(Path(folder), "phase"), accelerator)  # fmt: skip
            return time.process_time() - began

    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    few, many = run(4), run(24)
    cost = (many - few) / 20
    module.load_state_dict(before)
    steps = max(4, int(0.85 * (seconds - few) / cost))
    say(f"  {cost:.4f} CPU-seconds a step: {steps} steps")
    return steps, run(steps)
