"""The arguments and options that several verbs of the command line share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mfimage import console

Data = Annotated[list[str], typer.Argument(help="Named set, folder, zip or array file; several are joined.")]
Inputs = Annotated[list[str], typer.Argument(help="Image files, folders or glob patterns.")]
Model = Annotated[str, typer.Option("--model", "-m", help="Run directory, model directory or Hub id.")]
Outdir = Annotated[Path, typer.Option("--outdir", "-o", help="Where results go.")]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="JSON file of settings; flags override it.")
]
Seed = Annotated[int | None, typer.Option("--seed", min=0, max=2**63 - 1, help="Of everything random.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
BatchSize = Annotated[int | None, typer.Option("--batch-size", min=1, help="Images at a time.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="No talk on stderr but errors.")]
Verbose = Annotated[
    bool,
    typer.Option("-v", "--verbose", callback=console.note_verbose, help="Show the traceback of an error."),
]
MaxBad = Annotated[float, typer.Option(min=0, max=1, help="Share of unreadable files that is tolerated.")]
MaxPixels = Annotated[int, typer.Option(min=1, help="Images with more pixels are not decoded.")]
ValueRange = Annotated[str | None, typer.Option(help="LOW,HIGH of float images that do not lie in [0, 1].")]
