"""Model cards: what a model's README.md says of it, from what the model and its run know."""

from __future__ import annotations

import hashlib
import math
import re
import shlex
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from mfimage import __version__
from mfimage.console import counted, percent
from mfimage.datasets.hugging_face import is_hub_data, parse_name
from mfimage.datasets.pictures import save_png, sheet
from mfimage.errors import DataError, ModelError, UsageError, boundary
from mfimage.eval.numbers import Evaluation, read_evaluation
from mfimage.eval.verdict import verdict_of
from mfimage.files import read_json, write_text
from mfimage.models import GenerativeModel
from mfimage.ood.calibration import parse_calibration
from mfimage.ood.detector import DETECTOR
from mfimage.pretrained import CALIBRATION, weights_hash
from mfimage.results import CLASSES, settings_of
from mfimage.run import Run
from mfimage.streams import printable

CARD, SAMPLES, NO_LICENCE = "README.md", "samples.png", "license:"
_LICENCE = re.compile(r"(?m)^license[a-z_]*:.*\n?")  # lines of the front matter that are the user's
_FILLED = re.compile(r"""(?m)^license:[ \t]*["']?([\w.+-]+)["']?[ \t]*$""")
_KNOWN = re.compile(r"[a-z0-9][a-z0-9.+-]*")  # as the Hub writes licences: mit, cc-by-4.0, other
_MARK = re.compile(r"\n\n<!-- mfimage wrote this card, (\w{16}): .*-->\n*$")
_WHOLE = re.compile(r"(^|=|^hf:)[/~].*/(?=[^/])")  # folders of a whole path
_SHEET, _VALUES = (4, 8), 400_000  # rows and columns of samples, and how many values they have at most
_KINDS = {
    "manifold-flow": "An image manifold-learning flow (M-flow)",
    "encoder-flow": "A manifold-learning flow with a separate encoder (Me-flow)",
    "linear": "Principal components with a density on their codes",
    "sphere": "A flow on a sphere",
    "pie": "A pseudo-invertible encoder (PIE), a density on the whole space",
    "ambient-flow": "A normalising flow on the whole space",
    "autoencoder": "A probabilistic autoencoder",
}


def write_card(model: GenerativeModel, folder: Path, run: Run | None, repo: str, licence: str = "") -> str:
    """Write README.md and samples.png beside a model, and return the card's text.

    A card that was edited stays as it is, but for the licence; so does that of a model without its run.

    Args:
        model: As it lies in the folder, or is to lie there.
        folder: Where the card goes.
        run: That it was trained in, if that is known.
        repo: How it is to be named in examples: user/name.
        licence: By the Hub's name, as cc-by-4.0; that of the card there if empty.

    Raises:
        UsageError: The licence is no name, or an edited card says another.
    """
    path = folder / CARD
    with boundary(UsageError, f"{path}: is no text in UTF-8"):
        known = path.read_text(encoding="utf-8") if path.exists() else ""
    if known and (run is None or is_edited(known)):
        text = with_licence(known, licence)
    else:
        kept = "".join(_LICENCE.findall(_front(known))).rstrip()
        lines = _line(licence) if licence not in ("", licence_of(known)) else kept or NO_LICENCE
        samples = _write_samples(model, folder / SAMPLES)
        text = _marked(_render(model, run, repo, lines, samples))
    if text != known:
        write_text(path, text)
    return text


def is_edited(text: str) -> bool:
    """Whether a card is not as it was written, but for its licence; an empty one is not there."""
    found = _MARK.search(text)
    return bool(text) and (found is None or found[1] != _hash(text[: found.start()]))


def licence_of(text: str) -> str:
    """Read the licence of a card; empty if it has none."""
    found = _FILLED.search(_front(text))
    return found[1] if found else ""


def with_licence(text: str, licence: str) -> str:
    """Fill the licence of a card in; UsageError if it says another, or if the licence is no name."""
    if not licence or licence_of(text) == licence:
        return text
    if known := licence_of(text):
        raise UsageError(f"the licence is {licence}, and the card ({CARD}) says {known}: change one of them")
    front = _front(text)
    rest = _LICENCE.sub("", front).removeprefix("---\n") if front else "---\n"
    return f"---\n{_line(licence)}\n{rest}{text[len(front) :]}"


def _front(text: str) -> str:
    """The front matter of a card, with both lines of ---; empty if there is none."""
    found = re.match(r"---\n(.*?\n)?---\n", text, re.DOTALL)
    return found[0] if found else ""


def _line(licence: str) -> str:
    if not _KNOWN.fullmatch(licence):
        raise UsageError(
            f"licence {licence}: name it as the Hub does: mit, apache-2.0, cc-by-4.0, …, or other"
        )
    return f"license: {licence}"


def _marked(text: str) -> str:
    said = "pushes write it anew, until more of it than the licence is edited"
    return f"{text.rstrip()}\n\n<!-- mfimage wrote this card, {_hash(text.rstrip())}: {said} -->\n"


def _hash(text: str) -> str:
    return hashlib.sha256(_LICENCE.sub("", text).encode("utf-8", "replace")).hexdigest()[:16]


def _render(model: GenerativeModel, run: Run | None, repo: str, licence: str, samples: str) -> str:
    import jinja2

    source = resources.files("mfimage.eval").joinpath("templates/card.md").read_text(encoding="utf-8")
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    evaluation, images = _evaluation(model, run), len(model.shape) == 3
    said = evaluation.verdict if evaluation else verdict_of(model) or ""
    text = environment.from_string(source).render(
        name=repo.rpartition("/")[2], repo=repo, licence=licence, licensed=bool(_FILLED.search(licence)),
        images=images, projects=model.has_manifold, conditional=model.conditional, samples=samples,
        size=" × ".join(map(str, model.shape[1:])), what=_what(model), verdict=said, limits=_limits(model),
        measured=_measured(model, evaluation), version=__version__, **_of_run(model, run),
    )  # fmt: skip
    return re.sub(r"\n{3,}", "\n\n", text)


def _what(model: GenerativeModel) -> str:
    """Say in a sentence what a model is."""
    kind = _KINDS.get(model.config.kind if model.config else "", "A model")
    channels, *sides = model.shape
    colour = {1: "grey ", 3: "colour "}.get(channels, "")
    seen = f"{colour}images of {sides[0]} × {sides[1]} pixels" if sides else f"vectors of length {channels}"
    size = counted(sum(p.numel() for p in model.parameters()), "parameter")
    return f"{kind} of {seen}, with {counted(model.dim, 'manifold coordinate')} and {size}."


def _limits(model: GenerativeModel) -> list[str]:
    """Say what a model is for, and what it cannot do."""
    if len(model.shape) != 3:
        return [
            "A density on vectors like those that it was trained on, for research. It knows of no others."
        ]
    limits = [
        "Made for removing noise from images like those that it was trained on, for drawing new ones, and "
        "for finding those that do not belong.",
        "It takes images of this size and kind; of others it is no judge, and what it makes of them may be "
        "invented, as may any detail that noise or a mask has hidden: no measurement, diagnosis or evidence "
        "should rest on it.",
        "Whatever the training images lack or favour, samples and scores lack and favour too.",
        "Log-densities are by volume of its own manifold and do not compare with those of other models.",
    ]
    if DETECTOR not in model.measured:
        limits.append("It is not calibrated: no share of false alarms is known for its scores.")
    return limits


def _measured(model: GenerativeModel, evaluation: Evaluation | None) -> list[str]:
    """What was measured of these weights: paragraphs and a table."""
    found = []
    if evaluation:
        test, rules = evaluation.data["test"], evaluation.protocol
        found.append(
            f"On {counted(test['count'], 'image')} held out (sha256 `{test['sha256'][:16]}`); protocol "
            f"{rules['name']}: {rules['says']}. Weights: {evaluation.weights_text()}."
        )
        table = evaluation.table()
        found += [table.markdown(), table.below, *(f"Not measured: {one}" for one in evaluation.reasons())]
    elif verdict := verdict_of(model):
        found.append(f"At the end of training, on images that watched it: {verdict}")
    if told := model.measured.get(CLASSES):
        held_out = counted(told["images"], "image")
        found.append(f"Codes tell the class of {percent(told['accuracy'])} of {held_out} held out.")
    if DETECTOR in model.measured:
        with boundary(ModelError, f"{CALIBRATION}: damaged: calibrate the model again"):
            known = parse_calibration(model.measured[DETECTOR])
        familiar = counted(len(known.scores), "familiar image")
        found.append(f"Calibrated on {familiar}, α = {known.alpha:g} (`{CALIBRATION}`): {known.promise}.")
    return found


def _evaluation(model: GenerativeModel, run: Run | None) -> Evaluation | None:
    """Read what `evaluate` found of a run, if it is of these weights."""
    path = run.directory / "metrics.json" if run else None
    if path and path.exists():
        with suppress(DataError):  # of another version, or damaged
            found = read_evaluation(path)
            return found if found.model["sha256"] == weights_hash(model) else None
    return None


def _of_run(model: GenerativeModel, run: Run | None) -> dict[str, Any]:
    """What a run knows: its data, command, settings and decisions; nothing without one."""
    if run is None or not run.begun:
        return {"hub_data": [], "data": {}, "command": "", "settings": {}, "decisions": []}
    about, sources = read_json(run.directory / "data.json"), run.sources()
    data = {
        "source": ", ".join(map(_shown, sources)),
        "examples": f"{about['count']:,} of shape {tuple(about['shape'])}",
        "left out, not readable": about["skipped"],
        "sha256": f"`{about['sha256']}`",
    }
    settings = settings_of(run, run.config(), model)
    settings = {name: value for name, value in settings.items() if not name.startswith("data")}
    named = [parse_name(one) for one in sources if is_hub_data(one)]
    hub_data = [one.name for one in named if not one.folder]
    return {
        "hub_data": hub_data, "data": data, "command": _command(run), "settings": settings,
        "decisions": run.decisions(),
    }  # fmt: skip


def _command(run: Run) -> str:
    """The command that made a run; empty if it was made in Python."""
    path = run.directory / "command.txt"
    first, *words = shlex.split(path.read_text(encoding="utf-8", errors="replace")) if path.exists() else [""]
    ours = Path(first).name == "mfimage" or first.endswith("mfimage/__main__.py")
    return shlex.join(["mfimage", *map(_shown, words)]) if ours else ""


def _shown(word: str) -> str:
    """A source or a word of a command as others may read it: of a whole path its last part alone."""
    return printable(_WHOLE.sub(r"\1", word))


def _write_samples(model: GenerativeModel, path: Path) -> str:
    """Write a sheet of samples, and return its name; empty where none can be drawn, or shown."""
    if len(model.shape) != 3 or model.conditional:
        path.unlink(missing_ok=True)
        return ""
    rows, columns = _SHEET
    count = max(1, min(rows * columns, _VALUES // math.prod(model.shape)))
    drawn = model.sample(count, torch.Generator().manual_seed(0))
    save_png(sheet(drawn.clamp(0, 1).cpu(), columns), path)
    return path.name
