"""The verb that writes programs which run without mfimage: export."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from mfimage.cli import options as opt
from mfimage.errors import UsageError
from mfimage.outputs import claim

What = Literal["project", "encode", "decode", "denoise", "score", "log-prob", "sample"]


def export(
    model: str,
    path: Path,
    /,
    *,
    what: What = "project",
    talk: opt.Talk = opt.Talk(),
) -> None:
    """Write a function of a model as a program that runs without mfimage, for batches of any size.

    docs/export.md shows how to run it.

    Args:
        model: Run directory, model directory or Hub id.
        path: The file to be written: .pt2 (torch.export.load), or .onnx (onnxruntime and others).
        what: project, encode, decode, denoise (by the method for Gaussian noise of a σ that is an input),
            score (of reconstruction; with p-value and verdict if it was calibrated by that score),
            log-prob (exact, in nats), or sample (from base noise).
    """
    if path.suffix.lower() not in (".pt2", ".onnx"):
        raise UsageError(f"{path}: the ending says what is written: .pt2 or .onnx")
    from mfimage.plugs import export as plug
    from mfimage.pretrained import FILES, from_pretrained, locate

    place = locate(model)
    opt.given(*(place / name for name in FILES))
    claim(path)
    facts = plug.export(from_pretrained(place), path, what)
    if what == "score" and "threshold" not in facts:
        talk.say(
            "note: no p-value and no verdict: mfimage calibrate --score reconstruction makes what they need"
        )
    talk.say(f"{what}: {facts['inputs']} to {facts['outputs']}")
    talk.put({"path": path, "facts": facts}, [path])
