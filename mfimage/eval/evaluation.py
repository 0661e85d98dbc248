"""How good a model is: what it reconstructs, samples and thinks likely, measured by a named protocol."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mfimage.errors import DataError, UsageError
from mfimage.eval import sections
from mfimage.eval.cache import CHUNK, FeatureStore, is_main
from mfimage.eval.features import (
    FeatureExtractor,
    InceptionFeatures,
    InceptionUnavailable,
    ScatteringFeatures,
    find_inception_weights,
)
from mfimage.eval.numbers import Evaluation, Number, read_evaluation
from mfimage.eval.protocols import MOST, Protocol, protocol_of
from mfimage.eval.sections import Images, Setting
from mfimage.models import ChartedModel, GenerativeModel
from mfimage.run import weights_hash

METRICS = (
    "reconstruction", "density", "geometry", "latent", "memorisation", "fd", "fid", "kid", "prdc",
)  # fmt: skip
_OF_FEATURES = ("fd", "fid", "kid", "prdc")
_GEOMETRY = 100  # images at which J is looked at
SHOWN = 64  # samples on the page


def evaluate(
    data: Images,
    model: GenerativeModel,
    train: Images,
    *,
    metrics: tuple[str, ...] = METRICS,
    protocol: str = "mfimage",
    samples: int | None = None,
    density_images: int = 500,
    seed: int = 0,
    inception_weights: str | Path | None = None,
    batch_size: int = 256,
    cache: Path | None = None,
    tell: Callable[[str], None] = lambda message: None,
) -> Evaluation:
    """Evaluate a model on held-out images.

    Features are computed in chunks, each kept as a file: a broken-off evaluation goes on, those of data are
    there for the next model, and several processes share the work.

    Args:
        data: Held-out images.
        model: A trained model of images.
        train: Training images, for PCA, for nearest neighbours, and for the floor: the distance of as many
            training images to the held-out ones.
        metrics: Which of `METRICS`. "fid", "kid" and "prdc" need the Inception; "fd" takes features that need
            no weights, and is called fd-scattering.
        protocol: A name in `PROTOCOLS`.
        samples: Samples, and at most as many real images; None for what the protocol says.
        density_images: Held-out images whose exact log-density is computed.
        seed: Of samples and draws.
        inception_weights: A file of the genuine Inception weights; see `eval.find_inception_weights`.
        batch_size: Images at a time.
        cache: Directory of the features; ~/.cache/mfimage/features if None.
        tell: Is told in words what goes on.

    Returns:
        Numbers, each with N, interval, protocol and weights; why others were skipped; pictures. Of several
        processes only the first has numbers that cost time.

    Raises:
        DataError: If the images are not of the model's shape.
        UsageError: If there is no such metric or protocol, or a conditional model is asked for more than its
            reconstruction.
    """
    test, rules = data, protocol_of(protocol)
    _check(model, test, train, metrics)
    weights = weights_hash(model)
    device = model.device
    s = Setting(model, device, batch_size, seed, weights[:12], rules.name)
    kind = model.config.kind if model.config else ""
    parameters = sum(p.numel() for p in model.parameters())
    shape = list(model.shape)
    info = {"dim": model.dim, "shape": shape, "kind": kind, "parameters": parameters, "sha256": weights}
    summaries = {"test": test.summary(), "train": train.summary()}
    skipped: dict[str, str] = {}
    spaces = _spaces(metrics, rules, inception_weights, device, test.shape[0], skipped)
    wanted = [name for name in metrics if name not in skipped]
    numbers: dict[str, Number] = {}
    pictures: dict[str, Tensor] = {}
    if is_main():
        numbers, pictures = _of_images(s, wanted, test, train, rules, density_images, skipped, tell)
    count = samples or rules.samples or min(len(test), MOST)
    sets = _Sets(s, test, train, count, summaries)
    for space, extractor in spaces.items():
        numbers |= _of_features(s, wanted, space, extractor, sets, cache, tell)
    if "memorisation" in wanted and is_main():
        tell("nearest training images of samples")
        drawn = sets.samples(range(min(count, 1000)))
        more, pictures["nearest training images"] = sections.memorisation(s, drawn, test, train, MOST)
        numbers |= more
    if not model.conditional and is_main():
        pictures["samples"] = sets.samples(range(SHOWN))
    says = {"name": rules.name, "says": rules.says}
    asked = {"metrics": list(metrics), "samples": samples, "density_images": density_images, "seed": seed}
    return Evaluation(info, summaries, says, numbers, skipped, asked, pictures)


def evaluate_once(
    path: Path, data: Images, model: GenerativeModel, train: Images, **asked: Any
) -> Evaluation:
    """Evaluate a model, see `evaluate`, and keep the report as a file; read it where it answers the same."""
    if path.exists():
        known = read_evaluation(path)
        call = inspect.signature(evaluate).bind(data, model, train, **asked)
        call.apply_defaults()
        given = {name: call.arguments[name] for name in known.asked}
        if (
            known.asked == {**given, "metrics": list(call.arguments["metrics"])}
            and known.protocol["name"] == call.arguments["protocol"]
            and known.model["sha256"] == weights_hash(model)
            and known.data["test"]["sha256"] == data.summary()["sha256"]
            and known.data["train"]["sha256"] == train.summary()["sha256"]
        ):
            return known
    report = evaluate(data, model, train, **asked)
    report.save(path)
    return report


def _check(model: GenerativeModel, test: Images, train: Images, metrics: tuple[str, ...]) -> None:
    if unknown := set(metrics) - set(METRICS):
        raise UsageError(f"metrics {', '.join(sorted(unknown))}: choose from {', '.join(METRICS)}")
    for images in (test, train):
        if images.shape != model.shape:
            raise DataError(
                f"{images.name}: images of shape {images.shape}, but the model's have {model.shape}"
            )
    if model.conditional and set(metrics) - {"reconstruction"}:
        raise UsageError(
            "a conditional model: --metrics reconstruction; the rest depends on θ, see log_prob and sample"
        )


def _spaces(
    metrics: tuple[str, ...],
    rules: Protocol,
    inception_weights: str | Path | None,
    device: torch.device,
    channels: int,
    skipped: dict[str, str],
) -> dict[str, FeatureExtractor]:
    """The feature spaces by name. Before the long work: a wrong file of weights should be told at once."""
    found: dict[str, FeatureExtractor] = {}
    if set(metrics) & {"fid", "kid", "prdc"}:
        try:
            known = find_inception_weights(inception_weights)
            found["fid"] = InceptionFeatures(known, device, rules.resize, rules.jpeg)
        except InceptionUnavailable as error:
            skipped |= {name: str(error) for name in metrics if name in ("fid", "kid", "prdc")}
    if "fd" in metrics or ("fid" in metrics and "fid" in skipped):
        found[ScatteringFeatures.name] = ScatteringFeatures(channels)
    return found


def _of_images(
    s: Setting,
    wanted: list[str],
    test: Images,
    train: Images,
    rules: Protocol,
    density_images: int,
    skipped: dict[str, str],
    tell: Callable[[str], None],
) -> tuple[dict[str, Number], dict[str, Tensor]]:
    """What needs no samples: reconstruction, density, geometry, codes."""
    numbers: dict[str, Number] = {}
    pictures: dict[str, Tensor] = {}
    charted = isinstance(s.model, ChartedModel)
    if "reconstruction" in wanted and not s.model.has_manifold:
        skipped["reconstruction"] = "an ambient flow is its own projection"
    elif "reconstruction" in wanted:
        tell(f"reconstruction of {len(test)} images")
        numbers |= sections.reconstruction(s, test, train, rules.norm256)
        pictures["held-out images"] = test.batch(s.drawn(test, 12))
        pictures["reconstructions"] = s.project(pictures["held-out images"])
    if "density" in wanted:
        tell(f"exact log-density of {min(density_images, len(test))} images")
        numbers |= sections.density(s, test, density_images)
    for name in ("geometry", "latent"):
        if name in wanted and not charted:
            skipped[name] = "there is no manifold"
    if charted and "geometry" in wanted:
        numbers |= sections.shape(s, test, _GEOMETRY)
    if charted and "latent" in wanted:
        numbers |= sections.latent(s, test)
    return numbers, pictures


class _Sets:
    """The sets of images that a distance compares, each a function of a range of positions."""

    def __init__(self, s: Setting, test: Images, train: Images, count: int, data: dict[str, Any]) -> None:
        self.s, self.test, self.train, self.count = s, test, train, count
        self.real_rows, self.floor_rows = s.drawn(test, count), s.drawn(train, count)
        held_out = f"{data['test']['sha256']} {count} {s.seed}"
        self.keys = {
            "real": f"test {held_out}",
            "floor": f"train {data['train']['sha256']} {count} {s.seed}",
            "samples": f"samples {s.weights} {s.seed}",
            "reconstructions": f"reconstructions {s.weights} {held_out}",
        }

    def real(self, rows: range) -> Tensor:
        """Held-out images."""
        return self.test.batch(self.real_rows[rows.start : rows.stop])

    def floor(self, rows: range) -> Tensor:
        """Training images."""
        return self.train.batch(self.floor_rows[rows.start : rows.stop])

    def reconstructions(self, rows: range) -> Tensor:
        """Projections of the held-out images."""
        return self.s.project(self.real(rows))

    def samples(self, rows: range) -> Tensor:
        """Samples, cut to [0, 1]; a chunk's follow from the seed and its place."""
        parts = []
        for chunk in range(rows.start // CHUNK, (rows.stop - 1) // CHUNK + 1):
            generator = torch.Generator().manual_seed((self.s.seed * 1_000_003 + chunk) % 2**63)
            drawn = self.s.model.sample(CHUNK, generator, self.s.batch_size).clamp(0, 1).cpu()
            first = chunk * CHUNK
            parts.append(drawn[max(rows.start - first, 0) : rows.stop - first])
        return torch.cat(parts)


def _of_features(
    s: Setting,
    wanted: list[str],
    space: str,
    extractor: FeatureExtractor,
    sets: _Sets,
    cache: Path | None,
    tell: Callable[[str], None],
) -> dict[str, Number]:
    """Distances in one feature space."""
    store = FeatureStore(extractor, cache, tell)
    kinds = {"real": len(sets.real_rows), "samples": sets.count}
    if space != "fid" or "fid" in wanted:
        kinds["floor"] = len(sets.floor_rows)
        if s.model.has_manifold:
            kinds["reconstructions"] = len(sets.real_rows)
    names = {"real": "held-out images", "floor": "training images"}
    features = {
        kind: store.features(sets.keys[kind], count, getattr(sets, kind), names.get(kind, kind))
        for kind, count in kinds.items()
    }
    for kind in ("samples", "reconstructions"):
        store.forget(sets.keys[kind])
    numbers: dict[str, Number] = {}
    if not is_main():
        return numbers
    if "floor" in kinds:
        numbers |= sections.distances(s, space, features, extractor.weights, tell)
    if space == "fid" and "kid" in wanted:
        numbers |= sections.kernel(s, features, extractor.weights)
    if space == "fid" and "prdc" in wanted:
        numbers |= sections.prdc(s, features, extractor.weights)
    return numbers
