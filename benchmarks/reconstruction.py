"""How much of PCA's error is left on unseen clothes after a given time of training.

60,000 Fashion-MNIST training images, d = 32, one thread; an M-flow that learns no noise, trained as `train`
does for so many seconds by the clock, its density included; squared error of the first 2,000 test images over
that of PCA-32, fitted on the same 60,000.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from harness import put, say, trained

from mfimage.config import Config
from mfimage.datasets import load
from mfimage.eval.image_metrics import PCA, squared_error

DIM = 32
TINY = Config(dim=DIM, noise=0.0, steps=20, density_steps=5, validation=50, model={"hidden": 16, "width": 2})


def main() -> None:
    """Train for each time from scratch and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tiny model of small clothes, for a look")
    parser.add_argument(
        "--time", type=float, nargs="+", default=[300.0, 1200.0], help="seconds of a training"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    quick, name = arguments.quick, "fashion-mini" if arguments.quick else "fashion-mnist"
    training, x = load(name, "train"), load(name, "test").batch(slice(0, 2000))
    pca = PCA.of(training, DIM)
    baseline = float(squared_error(x, pca.project(x)).mean())
    say(f"PCA-{DIM}: {baseline:.3f} squared error an image")
    results: dict[str, float] = {"pca": baseline}
    for seconds in [1.0] if quick else arguments.time:
        config = TINY if quick else Config(dim=DIM, noise=0.0, time=seconds)
        with tempfile.TemporaryDirectory() as folder:
            model, spent = trained(training, config, Path(folder))
        with torch.no_grad():
            errors = [squared_error(part, model.project(part)) for part in x.split(500)]
        ratio = float(torch.cat(errors).mean()) / baseline
        say(f"  {spent:.0f} CPU-seconds: {ratio:.4f} of PCA's error")
        results |= {f"ratio_{seconds:g}": ratio, f"cpu_seconds_{seconds:g}": spent}
    put(quick, **results)


if __name__ == "__main__":
    main()
