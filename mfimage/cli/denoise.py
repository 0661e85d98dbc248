"""The verb that removes noise: denoise."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from mfimage import console
from mfimage.cli import options as opt
from mfimage.cli.lists import with_listed
from mfimage.cli.values import DEVIATION, NOISE
from mfimage.console import counted
from mfimage.errors import DataError, Interrupted, UsageError
from mfimage.outputs import claim, hold
from mfimage.streams import say

if TYPE_CHECKING:
    from torch import Tensor

    from mfimage.denoising.comparison import Slide
    from mfimage.denoising.image_files import FileReader
    from mfimage.denoising.restorer import Restorer
    from mfimage.errors import Skipped

MethodName = Literal["auto", "projection", "refined", "soft", "map", "tweedie"]
_WARNED = 5  # strange images that are named on stderr


def denoise(
    *inputs: Annotated[opt.Inputs, Parameter(allow_leading_hyphen=True)],  # - is standard input
    model: opt.Model = "runs/latest",
    outdir: opt.Outdir = Path("denoised"),
    method: MethodName = "auto",
    sigma: Annotated[float | None, DEVIATION] = None,
    noise: Annotated[str | None, NOISE] = None,
    resize: opt.Flag = False,
    tile: opt.Flag = False,
    mask: Path | None = None,
    factor: Annotated[int | None, Parameter(name="--super"), opt.at_least(2)] = None,
    clean: Path | None = None,
    report: Path | None = None,
    uncertainty: Path | None = None,
    batch_size: opt.BatchSize = 256,
    options: opt.Options = opt.Options(),
) -> None:
    """Remove noise from images, fill in what a mask hides, or enlarge, and write PNG under their own names.

    An input - stands for a list of paths on standard input, one a line. What is far from what the model was
    trained on is named on standard error: there the result may be invented.

    Args:
        method: auto takes what did best at this noise on held-out images.
        sigma: Deviation of Gaussian noise on the scale of [0, 1].
        noise: gaussian:SIGMA, poisson:PEAK, poisson-gaussian:PEAK,SIGMA, salt-pepper:SHARE,
            correlated:SIGMA,WIDTH or colour:LUMINANCE,CHROMA in the place of sigma; without both it is
            estimated which noise it is.
        resize: Scale and crop to the model's size.
        tile: Treat large images in overlapping tiles.
        mask: Image, white where pixels are to be filled in.
        factor: Enlarge by this factor to the model's size.
        clean: Folder of clean images of the same names, in the same folders, to measure PSNR and SSIM.
        report: Folder for denoised.csv, compare.html (before and after under a slider) and sheet.png.
        uncertainty: Folder for maps of the error's standard deviation, float TIFF files on the scale of
            [0, 1], over colours the root mean square.
    """
    from mfimage.datasets.index import list_inputs
    from mfimage.denoising.image_files import FileReader, find_clean, sizes
    from mfimage.denoising.kinds import Evidence, fixed_noise
    from mfimage.denoising.operators import Downsample
    from mfimage.denoising.restorer import Restorer
    from mfimage.denoising.told import opaque
    from mfimage.inputs import reach_of, require_images
    from mfimage.luma import unscaled
    from mfimage.noise import Gaussian

    if resize and tile:
        raise UsageError("--resize and --tile: choose one")
    listed = with_listed(inputs)
    opt.given(*listed, mask, clean)
    hold(outdir)
    hold(report)
    hold(uncertainty)
    files, unread = list_inputs(listed)  # before the model is read, which takes longer
    paths = [str(path) for path in files]
    truths = None if clean is None else dict(zip(paths, find_clean(clean, paths, listed), strict=True))
    _claim(paths, outdir, report, uncertainty)
    flow = options.load(model)
    require_images(flow)
    channels, height, width = flow.shape
    size = (height, width) if factor is None else Downsample(factor).size(height, width)
    assumed, uncertain = None if noise is None else fixed_noise(noise), uncertainty is not None
    told = assumed if sigma is None else Gaussian((sigma, sigma))
    reader = FileReader(
        channels, size, options.reading, resize, tile, enlarged=factor is not None, beyond=reach_of(told)
    )
    missing = None if mask is None else reader.mask(mask)
    restorer = Restorer(flow, method, sigma, missing, factor, tile, batch_size, uncertain, noise=assumed)
    done = _Done(skipped=[*unread])
    large = [shape for _, shape in sizes(paths, options.reading.max_pixels)] if tile else []
    total = sum(restorer.steps(*shape) for shape in large) if tile else len(paths)
    with done.late, options.progress("tiles" if tile else "images", total) as advance:
        telling = replace(restorer, advance=_counting(advance), seen=Evidence())
        try:
            _restore(telling, reader, paths, truths, outdir, report, uncertainty, done)
        except KeyboardInterrupt:
            there = f"{len(done.rows):,} of {counted(len(paths), 'image')} are in {outdir}"
            raise Interrupted(signal.SIGINT, f"interrupted: {there}, and no report") from None
    notes = [*reader.notes, *opaque(done.clear, len(done.rows)), *_unmeasured(restorer, done)]
    if assumed is not None and done.luma and (words := unscaled(assumed)):
        notes.append(f"{done.luma:,} of {counted(len(done.rows), 'image')}: {words}")
    with done.late:
        _report(report, done, outdir, restorer, notes, model)
    options.notes(notes)
    if done.rows:
        _tell(done, outdir, restorer, truths is not None, options)
        options.caution(flow)
    done.late.end()


@dataclass
class _Done:
    """What is written so far, and what went wrong meanwhile: it is told after that."""

    rows: list[dict[str, Any]] = field(default_factory=list)  # of the table
    groups: list[Tensor] = field(default_factory=list)  # of the sheet
    slides: list[Slide] = field(default_factory=list)  # of the page
    skipped: list[Skipped] = field(default_factory=list)  # files that are bad
    clear: int = 0  # how many may be transparent
    luma: int = 0  # how many had colours, of which the model is given luma
    late: console.Late = field(default_factory=console.Late)


def _restore(
    restorer: Restorer,
    reader: FileReader,
    paths: list[str],
    truths: dict[str, Path] | None,
    outdir: Path,
    report: Path | None,
    uncertainty: Path | None,
    done: _Done,
) -> None:
    """Read, restore and write, batch by batch."""
    from mfimage.datasets import save_pngs
    from mfimage.denoising import image_files
    from mfimage.denoising.comparison import slides_of
    from mfimage.denoising.sheet import SHOWN, thumbnails
    from mfimage.denoising.told import rows_of
    from mfimage.denoising.uncertainty import save_maps

    size, used = (restorer.model.shape[1], restorer.model.shape[2]), _taken(outdir, report)
    for y, names in reader.batches(paths, done.skipped, restorer.missing):
        luma = _lumas(restorer, names)
        restored, truth = restorer(y.to(restorer.model.device), luma), None
        done.luma += sum(luma)
        stems, kinds = [Path(name).stem for name in names], image_files.kinds_of(names)
        pictures = map(image_files.FileKind.picture, kinds, restored.after)
        written = save_pngs(pictures, stems, outdir, used, [kind.deep for kind in kinds])
        done.clear += sum(kind.clear for kind in kinds)
        if uncertainty is not None and restored.deviation is not None:
            with done.late:
                maps = [uncertainty / path.with_suffix(".tiff").name for path in written]
                save_maps(restored.deviation, maps)
        if truths is not None:
            with done.late:  # the results are there, whatever the clean images are
                above, across = restored.after.shape[-2:]
                truth = reader.clean([truths[name] for name in names], (above, across))
        done.rows += rows_of(restored, names, [kind.white for kind in kinds], written, truth)
        if truths is None or truth is not None:
            left = SHOWN - len(done.groups)
            done.groups += thumbnails(restored, truth, size, left)
        if report is not None:
            done.slides += slides_of(restored, done.slides, truth)


def _lumas(restorer: Restorer, names: Sequence[str]) -> list[bool]:
    """Tell of which files a model is given the luma of colours; not asked where no noise is told."""
    from mfimage.luma import becomes_luma

    if restorer.model.shape[0] != 1 or (restorer.sigma is None and restorer.noise is None):
        return [False] * len(names)
    found = []
    for name in names:
        luma = True  # unless the file can be looked at again
        with suppress(DataError):
            luma = bool(becomes_luma(name, 1))
        found.append(luma)
    return found


def _counting(advance: console.Advance) -> Callable[[int], None]:
    """Tell a progress bar how many are done, from how many more are."""
    total = 0

    def more(count: int) -> None:
        nonlocal total
        total += count
        advance(total)

    more(0)
    return more


def _report(
    folder: Path | None, done: _Done, outdir: Path, restorer: Restorer, notes: Sequence[str], model: str
) -> None:
    """Write the table, the page and the sheet, where they are asked for."""
    from mfimage.denoising.comparison import page_of
    from mfimage.denoising.sheet import save_sheet
    from mfimage.denoising.told import headline, mean_quality
    from mfimage.files import write_csv

    if folder is None or not done.rows:
        return
    write_csv(folder / "denoised.csv", done.rows, digits=6)
    lead = f"{headline(done.rows, outdir)}."
    if any(row["psnr"] is not None for row in done.rows):
        lead += f" {mean_quality(done.rows)}."
    given = restorer.noise if restorer.sigma is None else restorer.sigma
    words = "estimated" if restorer.estimates else "none" if given is None else str(given)
    settings = {"model": model, "method": restorer.method, "noise": words}
    page = page_of(done.slides, done.rows, lead, restorer.estimates, settings, notes)
    page.write(folder / "compare.html")
    if done.groups:
        save_sheet(done.groups, folder / "sheet.png")


def _unmeasured(restorer: Restorer, done: _Done) -> list[str]:
    """Say of which images it is not judged whether the model knows what is on them."""
    from mfimage.denoising.familiarity import familiarity_of

    if restorer.inverse:
        return ["whether images that are filled in or enlarged are familiar to the model is not judged"]
    known = familiarity_of(restorer.model)
    if known is None:
        return [
            "what images are familiar to this model was not measured when it was trained: none is warned of"
        ]
    others = sum(not row["noise"].startswith("gaussian:") for row in done.rows)
    if known.other_whole is not None or not others:
        return []
    return [
        f"what images with noise other than Gaussian are familiar to this model was not measured when it was "
        f"trained: of {counted(others, 'image')} it is not judged"
    ]


def _tell(done: _Done, outdir: Path, restorer: Restorer, measured: bool, options: opt.Options) -> None:
    """Say what was done; name the strangest few on standard error, quiet or not: they may be invented."""
    from mfimage.denoising.kinds import assumed
    from mfimage.denoising.told import headline, mean_quality, summary, told

    rows = done.rows
    console.list_skipped(done.skipped)
    options.say(headline(rows, outdir))
    if words := assumed([row["noise"] for row in rows]):
        options.say(words)
    if not restorer.inverse:
        options.say("\n".join(told(rows, estimated=restorer.estimates)))
    if measured:
        options.say(mean_quality(rows))
    warnings = [row["warning"] for row in rows if row["warning"]]
    if len(warnings) > _WARNED:
        warnings = [*warnings[:_WARNED], f"and {len(warnings) - _WARNED} more"]
    for message in warnings:
        say(f"warning: {message}", logging.WARNING)
    images = [{"input": row["path"], **{key: row[key] for key in row if key != "path"}} for row in rows]
    found = {"images": images, "methods": summary(rows), "skipped": done.skipped}
    options.put(found, [row["output"] for row in rows])


def _claim(paths: Sequence[str], outdir: Path, report: Path | None, uncertainty: Path | None) -> None:
    """Check that all results can be written, and that none, named as its input, overwrites what is read."""
    from mfimage.datasets.pictures import png_paths

    pictures = png_paths([Path(path).stem for path in paths], outdir, _taken(outdir, report))
    maps = [uncertainty / path.with_suffix(".tiff").name for path in pictures] if uncertainty else []
    names = ("denoised.csv", "compare.html", "sheet.png") if report else ()
    claim(*pictures, *maps, *(Path(report or "", name) for name in names))


def _taken(outdir: Path, report: Path | None) -> set[str]:
    """Names that no result may have: that of the sheet, where it lies in the same folder."""
    return {"sheet"} if report is not None and report.resolve() == outdir.resolve() else set()
