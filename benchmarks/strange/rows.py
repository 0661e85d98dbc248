"""What scores images: ours, rows that cost nothing, and what a user would otherwise call."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from harness import say
from torch import Tensor

from mfimage import Detector
from mfimage.eval.image_metrics import PCA
from mfimage.inputs import in_batches
from mfimage.ood.evidence import fit_tail
from mfimage.ood.scores import SCORES, VOLUME, reference_of
from mfimage.ood.statistics import Statistics, bands, statistics_of, zlib_bits

FEW = 1000  # images that the scores of `VOLUME` are measured on
Scorer = Callable[[Tensor], dict[str, Tensor]]  # images (B, C, H, W) → scores (B,) by row; higher is stranger

AUTO = "auto"
FREE: dict[str, Callable[[Tensor], Tensor]] = {  # statistics (B, K) that cost nothing
    "mean and contrast": lambda x: torch.stack([x.flatten(1).mean(1), x.flatten(1).std(1)], 1).double(),
    "zlib bytes": lambda x: zlib_bits(x)[:, None],
    "gradient energy": lambda x: bands(x.double())[:, :2].mean(1, keepdim=True),
}


def ours(detector: Detector) -> Scorer:
    """`auto`, and its two p-values one by one, and together as if each had half of α."""

    def score(x: Tensor) -> dict[str, Tensor]:
        found = detector.score(x)
        far, ordinary = -found.ways.log().T
        return {
            AUTO: found.scores, "too far out alone": far, "too ordinary alone": ordinary,
            "both, half of α each": torch.maximum(far, ordinary),
        }  # fmt: skip

    return score


def free(training: Tensor) -> Scorer:
    """Rows that cost nothing: for how few training images a statistic of `FREE` is that low, or that high."""

    def both_ends(x: Tensor, name: str) -> Tensor:
        found = in_batches(FREE[name], x)
        return torch.cat([found, -found], 1)

    tails = {name: fit_tail(both_ends(training, name)) for name in FREE}
    return lambda x: {name: tails[name].surprise(both_ends(x, name)).amax(1) for name in FREE}


def formulas(model: Any, training: Tensor) -> Scorer:
    """The single scores of the same model; those that need the volume on the first 1,000 images."""
    usual = reference_of(_statistics(training, model, False))

    def score(x: Tensor) -> dict[str, Tensor]:
        found = {}
        for volume, images in ((False, x), (True, x[:FEW])):
            seen = _statistics(images, model, volume)
            names = [name for name in SCORES if (name in VOLUME) == volume]
            found |= {name: SCORES[name](seen, usual) for name in names}
        return found

    return score


def _statistics(x: Tensor, model: Any, volume: bool) -> Statistics:
    return Statistics.joined([statistics_of(part, model, volume) for part in x.split(250)])


def neighbours(training: Tensor, dim: int) -> Scorer:
    """PCA's reconstruction, and the distance to neighbours among its coordinates."""
    from sklearn.neighbors import NearestNeighbors

    pca = PCA.fit(training, dim)
    nearest = NearestNeighbors(n_neighbors=5).fit(pca.encode(training).numpy())
    return lambda x: {
        f"PCA-{dim} reconstruction": (x - pca.project(x)).square().flatten(1).mean(1),
        f"5 nearest neighbours, PCA-{dim}": torch.from_numpy(
            nearest.kneighbors(pca.encode(x).numpy())[0].mean(1)
        ),
    }


def outliers(training: Tensor, dim: int) -> Scorer:
    """Isolation Forest on PCA's coordinates, and ECOD and COPOD where pyod is installed."""
    from sklearn.ensemble import IsolationForest

    pca = PCA.fit(training, dim)
    codes = pca.encode(training).numpy()
    forest = IsolationForest(random_state=0).fit(codes)
    found = {"Isolation Forest": lambda u: -forest.score_samples(u)}
    if find_spec("pyod"):
        from pyod.models.copod import COPOD
        from pyod.models.ecod import ECOD

        for name, detector in (("ECOD", ECOD()), ("COPOD", COPOD())):
            # Both rank new points among all that were fitted, so fewer keep the time bearable.
            found[name] = detector.fit(codes[:5000]).decision_function
    else:
        say("pyod is not installed: without ECOD and COPOD")

    def score(x: Tensor) -> dict[str, Tensor]:
        u = pca.encode(x).numpy()
        return {f"{name}, PCA-{dim}": torch.from_numpy(of(u)) for name, of in found.items()}

    return score


def autoencoder(model: Any) -> Scorer:
    """Reconstruction error of an autoencoder."""

    def error(x: Tensor) -> Tensor:
        return in_batches(lambda part: (model.project(part) - part).square().flatten(1).mean(1), x)

    return lambda x: {"autoencoder, equal time": error(x)}


def likelihood(model: Any) -> Scorer:
    """−log p of an ambient flow, of dequantised images."""

    def score(x: Tensor) -> dict[str, Tensor]:
        noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(0))
        return {"ambient flow, equal time": -in_batches(model.log_prob, (x * 255 + noise) / 256)}

    return score
