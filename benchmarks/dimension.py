"""Does `mfimage dimension` find the d of a manifold whose d is known?

Rendered shapes at 32 × 32 with d ∈ {2, 8, 16} properties, 10,000 images, several seeds of images and fit
together. `recommended`: by true d, the recommendation for each seed; `worst`: by true d, the largest relative
error; `seconds`: CPU seconds a call, by true d, on average.
"""

from __future__ import annotations

import time

import torch
from harness import put, say, start

from mfimage.eval.dimension_choice import choose_dimension
from mfimage.experiments.simulators import Rendered


def recommend(dim: int, seed: int, count: int, steps: int) -> tuple[int, float]:
    """The recommendation on one drawn data set, and its CPU seconds."""
    images = Rendered(dim, 32, 1).sample(count, torch.Generator().manual_seed(100 + seed))
    begin = time.process_time()
    found = choose_dimension(images, seed=seed, steps=steps)
    seconds = time.process_time() - begin
    say(f"d = {dim}, seed {seed}: {found.dim} in {seconds:.0f} CPU-s. {found.reason}")
    return found.dim, seconds


def main() -> None:
    """Three manifolds, three seeds."""
    quick = start(__doc__)
    dims, seeds, count, steps = ((2,), 1, 3000, 300) if quick else ((2, 8, 16), 3, 10_000, 2000)
    runs = {dim: [recommend(dim, seed, count, steps) for seed in range(seeds)] for dim in dims}
    put(
        quick,
        recommended={dim: [found for found, _ in of] for dim, of in runs.items()},
        worst={dim: round(max(abs(found / dim - 1) for found, _ in of), 3) for dim, of in runs.items()},
        seconds={dim: round(sum(spent for _, spent in of) / len(of), 1) for dim, of in runs.items()},
    )


if __name__ == "__main__":
    main()
