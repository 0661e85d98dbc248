"""Functions of a model as programs that run without mfimage: for PyTorch (.pt2), and ONNX (.onnx)."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mfimage import __version__
from mfimage.errors import ModelError, UsageError, boundary, reason_of
from mfimage.files import whole
from mfimage.models import GenerativeModel
from mfimage.modes import plainly
from mfimage.plugs.fixed import fixed, plain
from mfimage.plugs.programs import PROGRAMS, Program, program_of
from mfimage.pretrained import weights_hash

FACTS = "mfimage.json"  # of a .pt2 file; in an .onnx file each fact is a property of the model
_TOLERANCE = 1e-4  # of the largest number, by which a program may differ from the model it was made of
_MOST = 2**31 - 2**20  # bytes that an ONNX file holds
_STEPS = ("p_value", "strange")  # outputs that jump where a score passes another
_Run = Callable[[Sequence[Tensor]], Sequence[Tensor]]


@plainly
@torch.no_grad()
def export(model: GenerativeModel, path: str | Path, what: str = "project") -> dict[str, str]:
    """Write a function of a model as a program that runs without mfimage, for batches of any size.

    Before it is written the program is run, an .onnx file where onnxruntime is installed, and compared with
    the model. All numbers are float32 but log_prob, score and p_value, which are float64.

    Args:
        model: A trained model; it stays as it is.
        path: The file: .pt2 is read by torch.export.load, .onnx by onnxruntime and others.
        what: "project", "encode", "decode", "denoise" (σ an input; the method is the one that
            `mfimage.denoise` takes for Gaussian noise of this σ), "score" (of reconstruction; with p-value
            and verdict where that was calibrated), "log-prob", or "sample" (from base noise z).

    Returns:
        What stands in the file about it: function, inputs, outputs, shape and dim of the model, range of
        values, hash of the weights, version.

    Raises:
        UsageError: If the ending is another, or this cannot be exported: the message says why; or a package
            is missing, and how to install it.
        ModelError: If the model lacks what the function needs.
    """
    path = Path(path)
    write = _WRITERS.get(path.suffix.lower())
    if write is None:
        raise UsageError(f"{path}: the ending says what is written: {' or '.join(_WRITERS)}")
    if what not in PROGRAMS:
        raise UsageError(f"what {what!r}: choose from {', '.join(PROGRAMS)}")
    program = program_of(model, what, path.suffix.lower() == ".onnx")
    given = _examples(model, program)
    facts = _facts(model, what, program, given)
    with whole(path) as temporary:
        content, run = write(_Call(fixed(model), program), program, given, facts)
        if run is not None:
            _compare(_Call(plain(model), program), run, given, program)
        temporary.write_bytes(content)
    return facts


class _Call(nn.Module):
    """A program of a model, as a module."""

    def __init__(self, model: GenerativeModel, program: Program) -> None:
        super().__init__()
        self.model, self.program = model, program

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        found = self.program.function(self.model, *given)
        return found if isinstance(found, tuple) else (found,)


def _examples(model: GenerativeModel, program: Program) -> list[Tensor]:
    """Make three of each input, like those to come."""
    still, generator = plain(model), torch.Generator().manual_seed(0)
    real = torch.float32
    theta = [torch.rand(3, model.context_features, generator=generator, dtype=real)] * model.conditional
    z = torch.randn(3, model.dim, generator=generator, dtype=real)
    u = still.push_forward(z, *theta)
    x = still.decode(u, *theta)
    y = x + 0.1 * torch.randn(x.shape, generator=generator, dtype=real)
    if len(model.shape) == 3:
        x = x.clamp(0, 1)
        y = torch.cat([y[:1].clamp(0, 1), y[1:]])  # noise that is cut, and noise that is not
    known = {"z": z, "u": u, "x": x, "y": y, "sigma": torch.tensor([0.02, 0.1, 0.3], dtype=real)}
    return [known[name] if name in known else theta[0] for name in program.inputs]


def _facts(model: GenerativeModel, what: str, program: Program, given: Sequence[Tensor]) -> dict[str, str]:
    """Say what a user of the file needs to know, in strings."""
    shapes = zip(program.inputs, given, strict=True)
    return {
        "program": what,
        "inputs": ", ".join(
            f"{name} (batch{''.join(f', {n}' for n in one.shape[1:])})" for name, one in shapes
        ),
        "outputs": ", ".join(program.outputs),
        "shape": json.dumps(model.shape),
        "dim": str(model.dim),
        "value_range": "images in [0, 1]" if len(model.shape) == 3 else "vectors",
        "weights_sha256": weights_hash(model),
        "mfimage": __version__,
        **program.facts,
    }


def _graph(module: nn.Module, program: Program, given: Sequence[Tensor]) -> torch.export.ExportedProgram:
    """Trace a module for batches of any size; UsageError if torch cannot."""
    batch = torch.export.Dim("batch", min=1)
    shapes = {"given": tuple({0: batch} for _ in given)}
    with boundary(UsageError, f"this function of this model cannot be traced by torch {torch.__version__}"):
        graph = torch.export.export(module, tuple(given), dynamic_shapes=shapes)
    for part in graph.graph_module.modules():
        for node in getattr(part, "graph", graph.graph).nodes:
            node.meta.pop("stack_trace", None)  # which names the files of this machine
    return graph


def _pt2(
    module: nn.Module, program: Program, given: Sequence[Tensor], facts: dict[str, str]
) -> tuple[bytes, _Run]:
    file = io.BytesIO()
    torch.export.save(_graph(module, program, given), file, extra_files={FACTS: json.dumps(facts)})
    content = file.getvalue()
    run = torch.export.load(io.BytesIO(content)).module()
    return content, lambda given: run(*given)


def _onnx(
    module: nn.Module, program: Program, given: Sequence[Tensor], facts: dict[str, str]
) -> tuple[bytes, _Run | None]:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"ONNX needs onnx and onnxscript ({error}): pip install 'mfimage[export]'"
        ) from error
    graph = _graph(module, program, given)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what the exporter itself uses
            made: Any = torch.onnx.export(
                graph, dynamo=True, verbose=False, input_names=program.inputs, output_names=program.outputs
            )
    except Exception as error:
        raise UsageError(f"this has no form in ONNX ({reason_of(_root(error))}): write a .pt2") from error
    made.model.metadata_props.update(facts)
    proto = made.model_proto
    if proto.ByteSize() > _MOST:
        raise UsageError(f"it has {proto.ByteSize():,} bytes, more than an ONNX file may hold: write a .pt2")
    content = proto.SerializeToString()
    return content, _onnx_run(content, program)


def _root(error: Exception) -> Exception:
    """Find the error behind others, which names what is missing."""
    return _root(error.__cause__) if isinstance(error.__cause__, Exception) else error


def _onnx_run(content: bytes, program: Program) -> _Run | None:
    """Run an ONNX file by onnxruntime; None where that is not installed."""
    try:
        import onnxruntime
    except ImportError:
        return None
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def run(given: Sequence[Tensor]) -> list[Tensor]:
        named = {name: one.numpy() for name, one in zip(program.inputs, given, strict=True)}
        return [torch.from_numpy(found) for found in session.run(list(program.outputs), named)]

    return run


_WRITERS: dict[str, Callable[..., tuple[bytes, _Run | None]]] = {".pt2": _pt2, ".onnx": _onnx}


def _compare(module: nn.Module, run: _Run, given: Sequence[Tensor], program: Program) -> None:
    """Raise ModelError unless a program gives what the model gives, for one example and for three."""
    for count in (1, 3):
        part = [one[:count] for one in given]
        for name, found, wanted in zip(program.outputs, run(part), module(*part), strict=True):
            if name in _STEPS:
                continue
            scale = wanted.abs().max().clamp_min(1)
            if not (error := float((found - wanted).abs().max() / scale)) <= _TOLERANCE:
                raise ModelError(
                    f"what was exported does not compute what the model does: {name} is {error:.1g} off"
                )
