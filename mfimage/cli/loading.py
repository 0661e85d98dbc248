"""What several verbs do before their work."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from mfimage.errors import UsageError

if TYPE_CHECKING:
    from mfimage.models import GenerativeModel


def load_model(source: str, device: str, projects: bool = False) -> GenerativeModel:
    """Read the model that --model names; with `projects`, refuse one that cannot project images."""
    import torch

    from mfimage.inputs import require_image_manifold
    from mfimage.run import from_pretrained

    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"--device {device}: choose auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: no CUDA device is visible to PyTorch")
    model = from_pretrained(source, "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
    if projects:
        require_image_manifold(model)
    return model


def check_outdir(paths: Iterable[str | Path], outdir: Path) -> None:
    """Refuse an output folder in which a result, named as its input, would overwrite a file that is read."""
    files = [Path(path) for path in paths]
    targets = {(outdir / f"{path.stem}.png").resolve() for path in files}
    if targets & {path.resolve() for path in files}:
        raise UsageError(f"--outdir {outdir}: the inputs lie there and would be overwritten; choose another")
