"""The page of one model's evaluation: its numbers, and pictures that nobody selected."""

from __future__ import annotations

from mfimage.eval.numbers import Evaluation
from mfimage.eval.page import Page, Pictures, Section, picture, strip
from mfimage.eval.table import number


def page_of(evaluation: Evaluation, name: str) -> Page:
    """Put an evaluation on a page, under the name of its model."""
    model, data, rules = evaluation.model, evaluation.data, evaluation.protocol
    count = f"{data['test']['count']:,}"
    lead = (
        f"{len(evaluation.numbers)} numbers of a model of {model['dim']} dimensions and "
        f"{model['parameters']:,} parameters on {count} held-out images.{_verdict(evaluation)}"
    )
    settings = {
        "weights": evaluation.weights_text(), "kind": model["kind"],
        "held-out images": f"{count}, sha256 {data['test']['sha256']}",
        "training images": f"{data['train']['count']:,}, sha256 {data['train']['sha256']}",
        "protocol": f"{rules['name']}: {rules['says']}", "seed": evaluation.asked.get("seed", 0),
    }  # fmt: skip
    notes = [f"no {metric}: {reason}" for metric, reason in evaluation.skipped.items()]
    return Page(f"Evaluation of {name}", lead, sections_of(evaluation), settings, notes)


def _verdict(evaluation: Evaluation) -> str:
    """Say how good reconstructions and samples are, as far as that was measured."""
    words, numbers = [], evaluation.numbers
    if psnr := numbers.get("psnr"):
        pca = f" (principal components: {number(psnr.beside['pca'])})" if "pca" in psnr.beside else ""
        words.append(f"reconstructs them at {number(psnr.value)} dB{pca}")
    for name in [name for name in ("fid", "fd-scattering") if name in numbers][:1]:
        words.append(f"draws samples at a distance of {number(numbers[name].value)} ({name})")
    return f" It {' and '.join(words)}." if words else ""


def sections_of(evaluation: Evaluation) -> list[Section]:
    """Put the numbers, and each kind of pictures, under a heading."""
    shown = dict(evaluation.pictures)
    samples, near = shown.pop("samples", None), shown.pop("nearest training images", None)
    sections = [
        Section("Numbers", "", [evaluation.table(narrow=True)]),
        Section("Reconstructions", "Drawn at random, unselected.", [strip(shown)]),
    ]
    if samples is not None:
        said = f"The first {len(samples)} samples of seed {evaluation.asked.get('seed', 0)}, unselected."
        sections.insert(1, Section("Samples", said, [Pictures([picture(samples, "samples", 8)])]))
    if samples is not None and near is not None:
        rows = {"samples": samples[: len(near)], "nearest training images": near}
        said = "The first samples, and below each the training image of the smallest distance in pixels."
        sections.append(Section("Nearest training images", said, [strip(rows)]))
    return sections
