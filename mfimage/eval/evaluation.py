"""How good a model is: what it reconstructs, samples and thinks likely, by a named protocol; its page."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from mfimage.console import counted
from mfimage.datasets.loading import Data
from mfimage.datasets.sets import Dataset, identity
from mfimage.errors import DataError, UsageError
from mfimage.eval.cache import FeatureStore, is_main
from mfimage.eval.features import InceptionFeatures, OwnFeatures, ScatteringFeatures
from mfimage.eval.inception import InceptionUnavailable, find_inception_weights
from mfimage.eval.metrics import (
    FEATURE_METRICS,
    METRICS,
    MODEL_METRICS,
    FeatureSpace,
    Numbers,
    noted,
    ruled_out,
)
from mfimage.eval.numbers import Evaluation, read_evaluation
from mfimage.eval.page import Page, Pictures, Section, picture, strip
from mfimage.eval.protocols import MOST, PROTOCOLS, Setup
from mfimage.eval.verdict import in_words, learned_of
from mfimage.inputs import load_like
from mfimage.models import DETAILED, SAMPLES, GenerativeModel, ways_to_sample
from mfimage.pretrained import weights_hash
from mfimage.settings import plain

_SHOWN = 64  # samples on the page
_BY_INCEPTION = ("fid", "kid", "prdc")


def evaluate(
    data: Data,
    model: GenerativeModel,
    train: Data,
    *,
    metrics: Sequence[str] = METRICS,
    protocol: str = "mfimage",
    samples: int | None = None,
    density_images: int = 500,
    seed: int = 0,
    inception_weights: str | Path | None = None,
    batch_size: int = 256,
    extractor: Callable[[Tensor], Tensor] | None = None,
    cache: Path | None = None,
    tell: Callable[[str], None] = lambda message: None,
) -> Evaluation:
    """Evaluate a model on held-out images.

    Features are computed in chunks, each kept as a file: a broken-off evaluation goes on, those of data are
    there for the next model, and several processes share the work.

    Args:
        data: Held-out images, as `mfimage.load` takes them; of files and names the split "test" is meant.
        model: A trained model of images.
        train: Training images, the split "train": for PCA, for nearest neighbours, for the floor, the
            distance of as many training images to the held-out ones, and for that of their reconstructions:
            what the manifold costs, where that of samples is what manifold and density cost.
        metrics: Which of `METRICS`. "fid", "kid" and "prdc" need the Inception; "fd" takes features that need
            no weights, and is called fd-scattering.
        protocol: A name in `PROTOCOLS`.
        samples: Samples, and at most as many real images; None for what the protocol says.
        density_images: Held-out images whose exact log-density is computed.
        seed: Of samples and draws.
        inception_weights: A file of the genuine Inception weights; see `eval.find_inception_weights`.
        batch_size: Images at a time.
        extractor: A network of your own, or any function of images to features: see `features.OwnFeatures`.
            "fd", "kid" and "prdc" are then of these features, under its name (fd-NAME, kid-NAME, …), and
            "fid" is left out.
        cache: Directory of the features; ~/.cache/mfimage/features if None. Those of an extractor without
            weights, which nothing tells from another, are not kept.
        tell: Is told in words what goes on.

    Returns:
        Numbers, each with N, interval, protocol and weights; why others were skipped; pictures. Of several
        processes only the first has numbers that cost time.

    Raises:
        DataError: If the images cannot be had, are not of the model's shape, or too few for any number.
        ModelError: If it is a model of vectors.
        UsageError: If there is no such metric or protocol, a conditional model is asked for more than its
            reconstruction, or the extractor is none.
    """
    _check(model, metrics, protocol)
    samples, density_images, seed, batch_size = plain((samples, density_images, seed, batch_size))
    test, train = load_like(data, "test", model), load_like(train, "train", model)
    for said in (*test.notes, *train.notes, *(f"skipped: {bad.path}: {bad.reason}" for bad in test.skipped)):
        tell(said)
    rules, weights = PROTOCOLS[protocol], weights_hash(model)
    count = samples or rules.samples or min(len(test), MOST)
    learned = learned_of(train, model)
    s = Setup(model, test, train, learned, rules, count, density_images, seed, batch_size, weights[:12], tell)
    if extractor is None:
        spaces, skipped = _feature_spaces(s, metrics, inception_weights)
    else:
        spaces, skipped = _own_space(s, metrics, extractor)
    skipped |= ruled_out(model, metrics)
    summaries = {"test": test.summary(), "train": train.summary()}
    numbers: Numbers = {}
    failed: dict[str, str] = {}
    pictures: dict[str, Tensor] = {}
    for name, measure in MODEL_METRICS.items():
        if name in metrics and name not in skipped and is_main():
            with noted(name, failed):
                more, shown = measure(s)
                numbers, pictures = numbers | more, pictures | shown
    for space in spaces:
        numbers |= _feature_numbers(s, space, summaries, cache, failed)
    if failed and not numbers and is_main():
        raise DataError("; ".join(f"{name} cannot be measured: {why}" for name, why in failed.items()))
    if not model.conditional and is_main():
        ways = ways_to_sample(model.noise_aware)
        pictures |= {way: s.sample(range(_SHOWN), detail) for way, detail in ways.items()}
    says = {"name": rules.name, "says": rules.says}
    asked = {"metrics": list(metrics), "samples": samples, "density_images": density_images, "seed": seed}
    asked |= {} if extractor is None else {"extractor": [space.name for space in spaces]}
    described = {**_described(model, weights), "learned": len(learned)}
    words = in_words(numbers, model, len(learned))
    return Evaluation(described, summaries, says, numbers, skipped | failed, asked, words, pictures)


def evaluate_once(path: Path, data: Data, model: GenerativeModel, train: Data, **settings: Any) -> Evaluation:
    """Evaluate a model, see `evaluate`, and keep the result as a file; read it where it answers the same."""
    test, train = load_like(data, "test", model), load_like(train, "train", model)
    if path.exists():
        known = read_evaluation(path)
        call = inspect.signature(evaluate).bind(test, model, train, **settings)
        call.apply_defaults()
        asked = {name: call.arguments[name] for name in known.asked}
        if (
            call.arguments["extractor"] is None
            and known.asked == {**asked, "metrics": list(call.arguments["metrics"])}
            and known.protocol["name"] == call.arguments["protocol"]
            and known.model["sha256"] == weights_hash(model)
            and identity(known.data["test"]) == identity(test.summary())
            and identity(known.data["train"]) == identity(train.summary())
        ):
            return known
    found = evaluate(test, model, train, **settings)
    found.save(path)
    return found


def _check(model: GenerativeModel, metrics: Sequence[str], protocol: str) -> None:
    if protocol not in PROTOCOLS:
        raise UsageError(f"no protocol {protocol!r}: there are {', '.join(PROTOCOLS)}")
    if unknown := set(metrics) - set(METRICS):
        raise UsageError(f"metrics {', '.join(sorted(unknown))}: choose from {', '.join(METRICS)}")
    if model.conditional and set(metrics) - {"reconstruction"}:
        raise UsageError(
            "a conditional model: --metrics reconstruction; the rest depends on θ, see log_prob and sample"
        )


def _described(model: GenerativeModel, weights: str) -> dict[str, Any]:
    kind = model.config.kind if model.config else ""
    size = sum(p.numel() for p in model.parameters())
    return dict(dim=model.dim, shape=list(model.shape), kind=kind, parameters=size, sha256=weights)


def _feature_spaces(
    s: Setup, metrics: Sequence[str], inception_weights: str | Path | None
) -> tuple[list[FeatureSpace], dict[str, str]]:
    """The feature spaces that metrics need; by name of a metric why it cannot be measured."""
    spaces, skipped = list[FeatureSpace](), dict[str, str]()
    if by_inception := [name for name in _BY_INCEPTION if name in metrics]:
        try:
            weights = find_inception_weights(inception_weights)
            inception = InceptionFeatures(weights, s.model.device, s.protocol.resize, s.protocol.jpeg)
            spaces.append(FeatureSpace("fid", inception, by_inception))
        except InceptionUnavailable as error:
            skipped = dict.fromkeys(by_inception, str(error))
    if "fd" in metrics or "fid" in skipped:
        scattering = ScatteringFeatures(s.test.shape[0])
        spaces.append(FeatureSpace(scattering.name, scattering, ["fd"]))
    return spaces, skipped


def _own_space(
    s: Setup, metrics: Sequence[str], extractor: Callable[[Tensor], Tensor]
) -> tuple[list[FeatureSpace], dict[str, str]]:
    """The same of features of one's own, which are never called FID."""
    own = OwnFeatures(extractor, s.test.shape)
    name = f"fd-{own.name}"
    wanted = [metric for metric in ("fd", "kid", "prdc") if metric in metrics]
    skipped = {"fid": f"is of the Inception; by this extractor it is fd, called {name}"}
    spaces = [FeatureSpace(name, own, wanted, f"-{own.name}")] if wanted else []
    return spaces, skipped if "fid" in metrics else {}


def _feature_numbers(
    s: Setup,
    space: FeatureSpace,
    summaries: Mapping[str, Mapping[str, Any]],
    cache: Path | None,
    failed: dict[str, str],
) -> Numbers:
    """Measure in one feature space; no numbers in processes that only share the work."""
    store = FeatureStore(space.extractor, cache, s.tell)
    held_out, known = (f"{identity(data)} {s.samples} {s.seed}" for data in summaries.values())
    ways, reconstructions = ways_to_sample(s.model.noise_aware), f"reconstructions {s.weights} {known}"
    drawings = {name: f"{name} {detail} {s.weights} {s.seed}" for name, detail in ways.items()}

    def drawn(data: Dataset) -> tuple[int, Callable[[range], Tensor]]:
        order = s.drawn(data, s.samples)
        return len(order), lambda rows: data.batch(order[rows.start : rows.stop])

    (count, real), (known_count, training), features = drawn(s.test), drawn(s.train), store.features
    sets = {
        "real": features(f"test {held_out}", count, real, "held-out images"),
        "training images": features(f"train {known}", known_count, training, "training images"),
    }
    for name, detail in ways.items():
        sets[name] = features(drawings[name], s.samples, partial(s.sample, detail=detail), name)
    if s.model.has_manifold:

        def again(rows: range) -> Tensor:
            return s.project(training(rows), shown=True)

        sets["reconstructions"] = features(reconstructions, known_count, again, "reconstructions")
    for key in (*drawings.values(), reconstructions):
        store.forget(key)
    numbers: Numbers = {}
    for name in space.metrics if is_main() else ():
        with noted(name, failed):
            numbers |= FEATURE_METRICS[name](s, space, sets)
    return numbers


def page_of(evaluation: Evaluation, name: str) -> Page:
    """Put an evaluation on a page, under the name of its model."""
    model, data, rules = evaluation.model, evaluation.data, evaluation.protocol
    count = f"{data['test']['count']:,}"
    size = f"{counted(model['dim'], 'dimension')} and {counted(model['parameters'], 'parameter')}"
    lead = f"{evaluation.verdict} The model has {size}.".strip()
    settings = {
        "weights": evaluation.weights_text(), "kind": model["kind"],
        "held-out images": f"{count}, sha256 {data['test']['sha256']}",
        "training images": f"{data['train']['count']:,}, sha256 {data['train']['sha256']}",
        "principal components": f"of {counted(model['learned'], 'image')}, those that were learned from",
        "protocol": f"{rules['name']}: {rules['says']}", "seed": evaluation.asked.get("seed", 0),
    }  # fmt: skip
    notes = [f"no {reason}" for reason in evaluation.reasons()]
    return Page(f"Evaluation of {name}", lead, sections_of(evaluation), settings, notes)


def sections_of(evaluation: Evaluation) -> list[Section]:
    """Put the numbers, and each kind of pictures, under a heading."""
    shown = dict(evaluation.pictures)
    near, samples = shown.pop("nearest training images", None), shown.get(SAMPLES)
    drawn = {name: shown.pop(name) for name in (SAMPLES, DETAILED) if name in shown}
    sections = [
        Section("Numbers", "", [evaluation.table(narrow=True)]),
        Section("Reconstructions", "Drawn at random, unselected.", [strip(shown)]),
    ]
    if samples is not None:
        said = f"The first {len(samples)} samples of seed {evaluation.asked.get('seed', 0)}, unselected."
        pictures = [picture(images, name, 8, name) for name, images in drawn.items()]
        sections.insert(1, Section("Samples", said, [Pictures(pictures)]))
    if samples is not None and near is not None:
        rows = {"samples": samples[: len(near)], "nearest training images": near}
        said = "The first samples, and below each the training image of the smallest distance in pixels."
        sections.append(Section("Nearest training images", said, [strip(rows)]))
    return sections
