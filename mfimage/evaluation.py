"""How good a model is: reconstruction beside PCA, density on the manifold, Fréchet distance of samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mfimage.checkpoint import weights_hash
from mfimage.datasets.images import ImageSet
from mfimage.errors import DataError, UsageError
from mfimage.eval.density import density_summary
from mfimage.eval.features import InceptionFeatures
from mfimage.eval.frechet import fid
from mfimage.eval.inception import InceptionUnavailable, find_inception_weights
from mfimage.eval.reconstruction import PCA, reconstruction_table
from mfimage.inputs import in_batches
from mfimage.losses import dequantise
from mfimage.models import PIE, AmbientFlow, GenerativeModel
from mfimage.models.ambient import bits_per_dim

METRICS = ("reconstruction", "density", "fid")


def evaluate(
    model: GenerativeModel,
    test: ImageSet,
    train: ImageSet,
    *,
    metrics: tuple[str, ...] = METRICS,
    samples: int = 2000,
    density_images: int = 500,
    seed: int = 0,
    inception_weights: str | Path | None = None,
    batch_size: int = 256,
    tell: Callable[[str], None] = lambda message: None,
) -> dict[str, Any]:
    """Evaluate a model on held-out images.

    Args:
        model: A trained M-flow.
        test: Held-out images.
        train: Training images, for PCA and for the Fréchet floor (their distance to the test images).
        metrics: Which of "reconstruction", "density" and "fid".
        samples: Number of samples, and at most as many real images, in the Fréchet distance.
        density_images: Number of held-out images whose exact log-density is computed.
        seed: Of the samples.
        inception_weights: A file of the genuine Inception weights; see `eval.find_inception_weights`.
        batch_size: Images at a time.
        tell: Is told in words what goes on.

    Returns:
        What json.dump takes: `model`, `data`, and a part a metric; a part that could not be computed holds
        the reason as `skipped`.

    Raises:
        DataError: If the images are not of the model's shape.
        UsageError: If a conditional model is asked for more than its reconstruction.
    """
    for images in (test, train):
        if images.shape != model.shape:
            raise DataError(
                f"{images.name}: images of shape {images.shape}, but the model's have {model.shape}"
            )
    if model.settings.get("context") and set(metrics) - {"reconstruction"}:
        raise UsageError(
            "a conditional model: --metrics reconstruction; the rest depends on θ, see log_prob and sample"
        )
    result: dict[str, Any] = {
        "model": {"dim": model.dim, "shape": list(model.shape), "sha256": weights_hash(model)},
        "data": {"test": test.summary(), "train": train.summary()},
    }
    device = next(model.parameters()).device
    if "fid" in metrics:  # before the long work: a wrong file of weights should be told at once
        try:
            extractor = InceptionFeatures(find_inception_weights(inception_weights), device)
        except InceptionUnavailable as error:
            result["fid"] = {"skipped": str(error)}
    if "reconstruction" in metrics and isinstance(model, AmbientFlow):
        result["reconstruction"] = {"skipped": "an ambient flow is its own projection"}
    elif "reconstruction" in metrics:
        tell(f"reconstruction of {len(test)} images")
        result["reconstruction"] = _reconstruction(model, test, train, device, batch_size)
    if "density" in metrics:
        x = test.batch(_drawn(len(test), density_images, seed)).to(device)
        tell(f"exact log-density of {len(x)} images")
        result["density"] = _density(model, x, seed, batch_size)
    if "fid" in metrics and "fid" not in result:
        result["fid"] = _fid(model, test, train, samples, seed, extractor, batch_size, tell)
    return result


def _drawn(count: int, most: int, seed: int) -> Tensor:
    """Positions of at most `most` of `count` images, at random: files lie in order of their classes."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:most]


def _reconstruction(
    model: GenerativeModel, test: ImageSet, train: ImageSet, device: torch.device, batch_size: int
) -> dict[str, Any]:
    x = test.batch(slice(None))
    projected = in_batches(lambda part: model.project(part.to(device)), x, batch_size)
    baseline = PCA.fit(train.batch(slice(None)), model.dim)
    return reconstruction_table(x, projected.clamp(0, 1), baseline.project(x).clamp(0, 1))


def _density(model: GenerativeModel, x: Tensor, seed: int, batch_size: int) -> dict[str, Any]:
    """Summarise log-densities; on the whole space those of dequantised images, and bits per dimension."""
    whole = isinstance(model, AmbientFlow | PIE)
    if whole:
        x = dequantise(x, torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)).to(x))
    log_prob = in_batches(model.log_prob, x, min(batch_size, 32))
    summary = density_summary(log_prob, math.prod(model.shape) if whole else model.dim)
    return (
        summary | {"bits_per_dim": float(bits_per_dim(log_prob, x[0].numel()).mean())} if whole else summary
    )


def _fid(
    model: GenerativeModel,
    test: ImageSet,
    train: ImageSet,
    samples: int,
    seed: int,
    extractor: InceptionFeatures,
    batch_size: int,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    real, familiar = (images.subset(_drawn(len(images), samples, seed)) for images in (test, train))
    tell(f"Inception features of {samples} samples, {len(real)} test and {len(familiar)} training images")
    drawn = model.sample(samples, torch.Generator().manual_seed(seed), batch_size)
    result = fid(
        drawn.clamp(0, 1).split(batch_size),
        real.batches(batch_size),
        extractor,
        train=familiar.batches(batch_size),
    )
    return {**result, "seed": seed}


def describe(result: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Put an evaluation into rows (name, model, PCA) for people."""
    rows: list[tuple[str, str, str]] = []
    if (table := result.get("reconstruction")) and "skipped" in table:
        rows.append((f"reconstruction: {table['skipped']}", "–", ""))
    elif table:
        ours, pca = table["model"], table["pca"]
        rows += [
            (
                "squared error an image",
                f"{ours['squared_error']['mean']:.3f}",
                f"{pca['squared_error']['mean']:.3f}",
            ),
            ("mean squared error", f"{ours['mse']['mean']:.6f}", f"{pca['mse']['mean']:.6f}"),
            ("PSNR, dB", f"{ours['psnr']['mean']:.2f}", f"{pca['psnr']['mean']:.2f}"),
            ("SSIM", f"{ours['ssim']['mean']:.4f}", f"{pca['ssim']['mean']:.4f}"),
        ]
    if density := result.get("density"):
        rows.append(
            (
                f"log-density, nats ({density['n_finite']} of {density['n']} finite)",
                _number(density["mean"]),
                "",
            )
        )
        rows.append(("log-density, nats a dimension", _number(density["per_dim"]), ""))
        if "bits_per_dim" in density:
            rows.append(("bits per dimension, dequantised", _number(density["bits_per_dim"]), ""))
    if (distance := result.get("fid")) and "skipped" in distance:
        rows.append((f"FID: {distance['skipped']}", "–", ""))
    elif distance:
        rows.append(
            (
                f"FID of {distance['n_samples']} samples to {distance['n_real']} images",
                _number(distance["value"]),
                "",
            )
        )
        rows.append(
            (f"FID of {distance['n_floor']} training images (the floor)", _number(distance["floor"]), "")
        )
    return rows


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def psnr_of(x: Tensor, y: Tensor) -> float:
    """PSNR in dB of the mean squared error over a whole batch in [0, 1]."""
    return float(-10 * (x - y).square().mean().log10())
