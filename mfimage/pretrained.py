"""A model's directory, or its place on the Hugging Face Hub: written whole, read safely."""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mfimage.config import ModelConfig
from mfimage.console import json_text
from mfimage.errors import ModelError, UsageError, boundary
from mfimage.files import read_json, to_disk, whole, write_text
from mfimage.hub import PLAIN, Access, fetch_file, is_hub_id
from mfimage.models import ChartedModel, GenerativeModel
from mfimage.models.build import allocate, outline
from mfimage.modes import plainly
from mfimage.outputs import given
from mfimage.settings import from_json
from mfimage.tensors import load_state, read_tensors, require_fit, write_tensors

FORMAT = "mfimage-4"
_BEFORE = {f"mfimage-{i}": "0.1.0" for i in (1, 2, 3)}  # format → the last version that reads it
_UNCHOSEN = {"density_bins": 8, "density": "coupling"}  # of models saved before that could be chosen
WEIGHTS, CONFIG, CALIBRATION = FILES = "model.safetensors", "config.json", "calibration.json"
_SLACK = 2**22  # numbers that a model may make beside its weights: masks, and what a first weight is made of
_SECTIONS = "mfimage-calibration-3"  # format of calibration.json: a section for each finding


def save_pretrained(model: GenerativeModel, directory: str | Path) -> Path:
    """Write model.safetensors, config.json and, if anything was measured, calibration.json; return the path.

    All or nothing: whatever breaks it off, there are the old files, or the new ones, or no config.json and so
    no model; never parts of two.

    Args:
        model: What it carries in `measured` is the whole calibration.json.
        directory: Is made if need be.

    Raises:
        ModelError: If the model was put together by hand, so that no configuration describes it.
        ResourceError: If the files cannot be written; what was there before stays whole.
    """
    if model.config is None:
        raise ModelError("only a model that mfimage.build or train made has a configuration to be saved with")
    directory = Path(directory)
    texts = {CONFIG: json_text({"format": FORMAT, **asdict(model.config)}, 2) + "\n"}
    if model.measured:
        texts[CALIBRATION] = _calibration_text(model.measured)
    with (
        ExitStack() as files
    ):  # which gives them their names from the last to the first: config.json comes last
        new = {name: files.enter_context(whole(directory / name)) for name in (*texts, WEIGHTS)}
        for name, text in texts.items():
            new[name].write_text(text, encoding="utf-8")
        write_tensors(model.state_dict(), new[WEIGHTS], {})
        for temporary in new.values():
            to_disk(temporary)
        for name in (CONFIG, *({CALIBRATION} - new.keys())):
            (directory / name).unlink(missing_ok=True)
    return directory


@plainly
def from_pretrained(
    source: str | Path,
    device: str | torch.device = "cpu",
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> GenerativeModel:
    """Read a model from a directory, or from the Hugging Face Hub.

    Args:
        source: A directory that `save_pretrained` or a training run wrote, or an id of the Hub: "user/name",
            "user/name@revision".
        device: Where the weights go: "auto" (a GPU if there is one), "cpu", "cuda", or as torch names it.
        revision: Branch, tag or commit, of an id; so are the following. See `hub.Access`.
        token: Of a private repository; None for that of this machine.
        cache_dir: Where fetched files are kept; None for the Hub's own cache.
        local_files_only: Ask the cache alone.
        force_download: Fetch again what is in the cache.

    Returns:
        The model in evaluation mode.

    Raises:
        ModelError: If files are missing, damaged, of another format, or do not fit together, or if the
            model that they make gives no finite numbers; if the Hub does not give them.
        UsageError: If there is no CUDA device where one is asked for, or a directory is to have a revision.
    """
    access = Access(revision, token, cache_dir, local_files_only, force_download)
    device, directory = find_device(device), locate(source, access)
    given([directory / CONFIG, directory / WEIGHTS])
    config, measured = _read_config(directory / CONFIG)
    model = _filled(config, directory / WEIGHTS)
    model.measured = measured | read_calibration(directory)
    return model.to(device).eval()


def _filled(config: ModelConfig, path: Path) -> GenerativeModel:
    """Make a model of a file of weights; nothing is allocated before names and shapes are found to fit."""
    tensors = read_tensors(path)
    held = sum(tensor.numel() for tensor in tensors.values())
    with boundary(ModelError, f"{path.with_name(CONFIG)}: describes no model of {WEIGHTS}"):
        model = outline(config, _SLACK + 2 * held)
    require_fit(model.state_dict(), tensors, path)
    load_state(allocate(model), tensors, path)
    with boundary(ModelError, f"{path}: damaged: the model gives no finite numbers"):
        _require_finite(model)
    return model


@torch.no_grad()
def _require_finite(model: GenerativeModel) -> None:
    """Raise ValueError unless a grey image, its projection and what is drawn from no noise are finite."""
    grey = torch.full((1, *model.shape), 0.5, dtype=torch.float32)
    theta = grey.new_zeros(1, model.context_features) if model.conditional else None
    codes, middle = model.encode(grey, theta), model.push_forward(grey.new_zeros(1, model.dim), theta)
    both = None if theta is None else theta.expand(2, -1)
    projection, sample = model.decode(torch.cat([codes, middle]), both)
    found = {"the codes of a grey image": codes, "its projection": projection, "the middle sample": sample}
    if isinstance(model, ChartedModel):
        found["its log-density"] = model.density.log_prob(codes, theta)
    for name, values in found.items():
        if not values.isfinite().all():
            raise ValueError(f"{name} is not finite")


def write_calibration(directory: str | Path, sections: dict[str, Any]) -> Path:
    """Write `model.measured` whole or not at all, or remove the file if it is empty; return the path."""
    path = Path(directory) / CALIBRATION
    if sections:
        return write_text(path, _calibration_text(sections), durable=True)
    path.unlink(missing_ok=True)
    return path


def _calibration_text(sections: dict[str, Any]) -> str:
    return json.dumps({"format": _SECTIONS, **sections}) + "\n"


def read_calibration(directory: str | Path) -> dict[str, Any]:
    """Read what was found out about the model in a directory, by section; nothing if there is no file."""
    path = Path(directory) / CALIBRATION
    if not path.exists():
        return {}
    try:
        sections = read_json(path, "calibration", ModelError)
    except ModelError as error:
        raise ModelError(f"{error}: delete it, and calibrate the model again") from error
    before = sections.pop("format", None) != _SECTIONS  # when the file was a detector's alone
    return {"detector": sections} if before else sections


def find_device(name: str | torch.device) -> str | torch.device:
    """Name a device as torch does; "auto" is a CUDA device if there is one, else the CPU.

    UsageError for one that is not there, or that has no float64, which Apple's lacks.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if str(name).split(":")[0] == "mps":
        raise UsageError(f"device {name}: has no float64, in which volumes are computed; take cpu")
    with boundary(UsageError, f"device {name}: PyTorch has none of this name here"):
        torch.empty(0, device=name)
    return name


def weights_hash(model: nn.Module) -> str:
    """Hash a module's tensors by name, shape and bytes (sha256, hexadecimal)."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def locate(source: str | Path, access: Access = PLAIN) -> Path:
    """Find the directory that holds a model's files, ModelError if none does; one of the Hub is fetched."""
    directory = Path(source)
    if access.revision is not None and directory.exists():
        raise UsageError(f"{source}: is a directory here; a revision is of an id of the Hub")
    for candidate in (directory, directory / "model"):
        if (candidate / CONFIG).exists() and (candidate / WEIGHTS).exists():
            return candidate
    if (directory / "model" / WEIGHTS).exists():
        raise ModelError(
            f"{source}: only the weights of a model put together by hand: make it again and load_state_dict; "
            "or of a save that was broken off: mfimage train --resume completes it"
        )
    if (directory / "checkpoints").is_dir():
        raise ModelError(f"{source}: this run has not finished: continue it with mfimage train --resume")
    if directory.exists():
        raise ModelError(f"{source}: no model here ({WEIGHTS} and {CONFIG} are expected in this directory)")
    if not is_hub_id(str(source)):
        raise ModelError(f"{source}: no such directory; a run or a model that mfimage wrote is expected")
    return _fetched(str(source), access)


def _fetched(source: str, access: Access) -> Path:
    """Fetch a model of the Hub, all files of one commit.

    Its configuration comes first, since weights of others may be large, and the weights come last: where they
    are in the cache, nothing is missing.
    """
    config = fetch_file(source, CONFIG, access)
    if config is not None and _is_ours(config):
        access = replace(access, revision=config.parent.name)
        try:
            fetch_file(source, CALIBRATION, access)
        except ModelError:  # the Hub is not reached: then all is in the cache, or nothing is read
            access = replace(access, local_files_only=True)
        if fetch_file(source, WEIGHTS, access) is not None:
            return config.parent
    raise ModelError(f"{source}: this repository of the Hub holds no model of mfimage")


def _is_ours(config: Path) -> bool:
    with suppress(ModelError):
        return str(read_json(config, error=ModelError).get("format")).startswith("mfimage-")
    return False


def _read_config(path: Path) -> tuple[ModelConfig, dict[str, Any]]:
    values = read_json(path, "model configuration", ModelError)
    written_by = values.pop("format", None)
    if written_by != FORMAT:
        last = _BEFORE.get(str(written_by))
        why = (
            f"a model of mfimage ≤ {last}: train it again, or use it with that version"
            if last
            else f"format {written_by!r} is not {FORMAT!r}: written by another program or version"
        )
        raise ModelError(f"{path}: {why}")
    measured = values.pop("measured", {})  # where it stood before there was calibration.json
    if not isinstance(measured, dict):
        raise ModelError(f"{path}: measured is one JSON object, not {type(measured).__name__}")
    if (draw := values.pop("draw", 0)) != 0:  # channels of networks that stood beside the dense pairs
        raise ModelError(
            f"{path}: a model with networks that draw whole images (draw is {draw!r:.20}), which are no "
            "longer there: train it again, or use it with the mfimage 0.1.0 that wrote it"
        )
    try:
        return from_json(ModelConfig, {**_UNCHOSEN, **values}), measured
    except UsageError as error:
        raise ModelError(f"{path}: not a model configuration ({error})") from error
