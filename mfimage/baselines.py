"""Models to hold a run against, trained as it was."""

from __future__ import annotations

from pathlib import Path

from mfimage.checkpoint import WEIGHTS
from mfimage.config import NOISE_AWARE
from mfimage.errors import UsageError
from mfimage.models import GenerativeModel
from mfimage.runs import Run
from mfimage.training import Data, train

BASELINES = {"pca": "pca", "ae": "pae", "af": "af", "pie": "pie"}  # algorithms by name


def baseline(
    name: str, run: str | Path, data: Data, outdir: str | Path, device: str = "auto", quiet: bool = True
) -> GenerativeModel:
    """Train a baseline with the settings of a run: the same d, steps, widths and images.

    Args:
        name: "pca": principal components and a Gaussian. "ae": a convolutional autoencoder of networks as
            wide as the run's, with splines for the density of its codes. "af": a flow on the whole space.
            "pie": one that is told which coordinates lie on the manifold.
        run: The run's directory.
        data: The training images.
        outdir: Of the baseline's own run; a finished one is not trained again, and an unfinished one goes on.
        device: "auto", "cpu" or "cuda".
        quiet: Without a progress bar on stderr.

    Raises:
        UsageError: If there is no such baseline, no run, or another run in outdir.
        DataError: If the run was trained on other images.
    """
    if name not in BASELINES:
        raise UsageError(f"no baseline {name!r}: there are {', '.join(BASELINES)}")
    like, own = Run(run), Run(outdir)
    config = like.config()
    like.require_same_data({"data": data.name, **data.summary()})
    algorithm = BASELINES[name]
    if config.noise_aware and algorithm not in NOISE_AWARE:
        config = config.with_(noise=0.0)
    config = config.with_(algorithm=algorithm)
    begun = (own.directory / "config.json").exists()
    if begun and own.config() != config:
        raise UsageError(f"{outdir} holds a run with other settings: choose another --outdir")
    if begun and (own.model / WEIGHTS).exists():
        from mfimage.checkpoint import from_pretrained

        own.require_same_data({"data": data.name, **data.summary()})
        return from_pretrained(own.model)
    return train(data, outdir, config, device=device, resume=begun, quiet=quiet)
