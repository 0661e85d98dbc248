"""How much of PCA's error is left on unseen clothes after a given CPU time of training.

60,000 Fashion-MNIST training images, d = 32, one thread; squared error of the first 2,000 test images over
that of PCA-32, fitted on the same 60,000.
"""

from __future__ import annotations

import time

import torch
from harness import put, say, start, train_for

from mfimage.config import ModelConfig, presets
from mfimage.datasets import load
from mfimage.eval.image_metrics import PCA, squared_error
from mfimage.losses import reconstruction
from mfimage.models.build import build

DIM = 32


def main() -> None:
    """Train for each budget from scratch and print the ratios."""
    quick = start(__doc__)
    training = load("fashion-mini" if quick else "fashion-mnist", "train")
    test = load("fashion-mini" if quick else "fashion-mnist", "test").subset(range(2000))
    x = test.batch(slice(None))
    pca = PCA.fit(training.batch(slice(None)), DIM)
    baseline = float(squared_error(x, pca.project(x)).mean())
    say(f"PCA-{DIM}: {baseline:.3f} squared error an image")
    results: dict[str, float | int] = {"pca": baseline}
    for budget in (2, 4) if quick else (300, 1200):
        config = presets["default"]
        chart = build(ModelConfig(training.shape, DIM), seed=0).chart
        began = time.process_time()
        chart.initialise(training.batch(slice(None)))
        spent = time.process_time() - began
        steps, seconds = train_for(
            budget - spent, chart, reconstruction, training, config.lr, config.batch_size
        )
        with torch.no_grad():
            errors = [squared_error(part, chart.inverse(_flat(chart, part))[0]) for part in x.split(500)]
        ratio = float(torch.cat(errors).mean()) / baseline
        say(f"  {seconds + spent:.0f} CPU-seconds, {steps} steps: {ratio:.4f} of PCA's error")
        results |= {
            f"ratio_{budget}": ratio,
            f"cpu_seconds_{budget}": seconds + spent,
            f"steps_{budget}": steps,
        }
    put(quick, **results)


def _flat(chart: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.pad(chart.codes(x), (0, chart.features - chart.dim))


if __name__ == "__main__":
    main()
