"""What several verbs do before their work."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mfimage.errors import DataError, UsageError

if TYPE_CHECKING:
    from mfimage.datasets import ImageSet
    from mfimage.models import GenerativeModel


def load_model(source: str, device: str, projects: bool = False) -> GenerativeModel:
    """Read the model that --model names; with `projects`, refuse one that cannot project images."""
    import torch

    from mfimage.checkpoint import from_pretrained
    from mfimage.inputs import require_image_manifold

    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"--device {device}: choose auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: no CUDA device is visible to PyTorch")
    model = from_pretrained(source, "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
    if projects:
        require_image_manifold(model)
    return model


def check_fit(files: ImageSet, model: GenerativeModel, outdir: Path) -> None:
    """Refuse images of another size than the model's, and an output that would overwrite an input."""
    height, width = files.shape[1:]
    if (height, width) != model.shape[1:]:
        raise DataError(
            f"{files.paths[0]}: {height} × {width} pixels, but the model takes "
            f"{model.shape[1]} × {model.shape[2]}: --resize scales and crops"
        )
    targets = {(outdir / f"{Path(path).stem}.png").resolve() for path in files.paths}
    if targets & {Path(path).resolve() for path in files.paths}:
        raise UsageError(f"--outdir {outdir}: the inputs lie there and would be overwritten; choose another")
