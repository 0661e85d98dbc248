"""The paper's experiments where the truth is known: the table of `mfimage reproduce` as one JSON object.

`{algorithm: {metric: [median, low, high]}}`. What lies finished in --outdir is not trained again. --quick
takes the two rows of the circle that train in seconds.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from harness import put, say

from mfimage.experiments import BUDGETS, EXPERIMENTS
from mfimage.experiments.reproduce import reproduce


def main() -> None:
    """Run an experiment and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiment", choices=list(EXPERIMENTS), default="circle")
    parser.add_argument("--algorithm", default="all", help="comma-separated")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--budget", choices=BUDGETS, default="quick")
    parser.add_argument("--dim", type=int, help="factors of image-manifold")
    parser.add_argument("--outdir", type=Path, help="kept; a temporary one if none")
    parser.add_argument("--quick", action="store_true", help="seconds, for a look")
    given = parser.parse_args()
    torch.set_num_threads(1)
    chosen = "fom,pca" if given.quick else given.algorithm
    with tempfile.TemporaryDirectory() as temporary:
        report = reproduce(
            given.experiment,
            given.outdir or temporary,
            algorithms=() if chosen == "all" else chosen.split(","),
            runs=given.runs,
            budget=given.budget,
            scene={"dim": given.dim} if given.dim else {},
            tell=say,
        )
    put(given.quick, **report.as_json())


if __name__ == "__main__":
    main()
