"""Data sets of Hugging Face by name: hf:NAME[/CONFIG][@REVISION][:SPLIT], opened by its `datasets`.

- `hf:mnist`, `hf:ylecun/mnist`: all splits, each for its use. Of a set with one split alone a tenth is held
  out as `test`, as of any folder.
- `hf:ylecun/mnist:test`: this split, taken whole whatever it is wanted for; `:train[:1000]` is part of one.
- `hf:user/set/config`: one of several configurations; with a user always, since two parts are user/set.
- `hf:user/set@main`: a branch, tag or commit.
- `hf:path/to/folder`: a folder here, as `load_dataset` reads it, or as `save_to_disk` wrote it.

Without a connection, or with HF_HUB_OFFLINE=1, what is in its cache is read.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from typing import Any, NamedTuple

from mfimage.datasets.splits import divide_rows
from mfimage.errors import DataError, UsageError, reason_of
from mfimage.files import user_path

_FORM = re.compile(r"hf:([^:@]+)(?:@([^:]+))?(?::(.+))?")
_SAVED = "state.json", "dataset_dict.json"  # what save_to_disk leaves


class HubData(NamedTuple):
    """What a name says."""

    name: str  # user/set, set, or a folder here
    config: str | None
    revision: str | None
    split: str | None
    folder: bool


def is_hub_data(source: object) -> bool:
    """Whether data are named as a set of Hugging Face."""
    return isinstance(source, str) and source.startswith("hf:")


def parse_name(source: str) -> HubData:
    """Read hf:NAME[/CONFIG][@REVISION][:SPLIT]; UsageError for what is not so."""
    found = _FORM.fullmatch(source)
    if found and (folder := user_path(found[1])).is_dir():
        return HubData(str(folder), None, found[2], found[3], True)
    parts = found[1].split("/") if found else []
    if not found or not all(parts) or len(parts) > 3:
        raise UsageError(
            f"{source}: a data set of Hugging Face is hf:NAME[/CONFIG][@REVISION][:SPLIT], with NAME as "
            "user/set, or a folder here"
        )
    return HubData("/".join(parts[:2]), parts[2] if len(parts) > 2 else None, found[2], found[3], False)


def open_hub_data(source: str) -> Any:
    """Open a data set of Hugging Face: the split that it names, else a mapping of all of them.

    Raises:
        UsageError: The name is none, or `datasets` is not installed.
        DataError: The set is not there or not reached, or has no such configuration or split.
    """
    asked, datasets = parse_name(source), import_datasets()
    try:
        if asked.folder and any(Path(asked.name, name).exists() for name in _SAVED):
            found = datasets.load_from_disk(asked.name)
            found = found[asked.split] if asked.split and isinstance(found, Mapping) else found
        else:
            found = datasets.load_dataset(
                asked.name, asked.config, split=asked.split, revision=asked.revision
            )
    except Exception as error:  # of many kinds: of datasets, of the Hub, of what they ask by
        raise DataError(f"{source}: {_why(error)}") from error
    found = found if asked.split else _divided(found)
    for one in found.values() if isinstance(found, Mapping) else [found]:
        one.info.dataset_name = source  # what messages call it
    return found


def _divided(found: Any) -> Any:
    """Hold a tenth out of a set that is not divided."""
    splits = list(found.values()) if isinstance(found, Mapping) else [found]
    if len(splits) > 1:
        return found
    return {
        name: splits[0].select(rows) for name, rows in divide_rows(len(splits[0])).items() if name != "all"
    }


def _why(error: Exception) -> str:
    if isinstance(error, ConnectionError):
        return "the Hub is not reached (no connection, or HF_HUB_OFFLINE), and it is not in the cache here"
    if type(error).__name__ == "DatasetNotFoundError":
        return "there is no such folder, and no such data set on the Hub that may be read from here"
    return reason_of(error)


def import_datasets() -> Any:
    """Import Hugging Face's datasets; UsageError tells how to install it.

    The folder of data that is linked at this repository's root has the same name, and is passed over.
    """
    known = sys.modules.get("datasets")
    if hasattr(known, "load_dataset"):
        return known
    places = [place for place in sys.path if not Path(place, "datasets", Path(__file__).name).exists()]
    spec = PathFinder.find_spec("datasets", places)
    if known is not None or spec is None or spec.loader is None:
        taken = " (another module has this name)" if known is not None else ""
        raise UsageError(f"hf:NAME needs Hugging Face's datasets{taken}: pip install 'mfimage[hf]'")
    module = sys.modules["datasets"] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except ImportError as error:
        del sys.modules["datasets"]
        raise UsageError(
            f"hf:NAME needs Hugging Face's datasets ({error}): pip install 'mfimage[hf]'"
        ) from error
    return module
