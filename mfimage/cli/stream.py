"""Scores of a stream: paths on standard input, or the images that appear in a folder, a line each at once."""

from __future__ import annotations

import math
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from cyclopts import Parameter

from mfimage import console, streams
from mfimage.cli import options as opt
from mfimage.cli import rows
from mfimage.cli.lists import arriving_paths
from mfimage.cli.values import DURATION, RATE, check_budget
from mfimage.errors import DataError, Interrupted, ModelError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from mfimage.models import GenerativeModel
    from mfimage.ood import Detector, Stream


@Parameter(name="*")
@dataclass(frozen=True)
class Streaming:
    """Images as they come.

    Args:
        watch: Score the images that appear in this folder, once they are whole; Ctrl-C ends it (exit code
            130).
        until_idle: End when for so long nothing has come.
        budget: Strange verdicts that familiar images may give, as 3/day, in the place of the calibration's
            alpha.
        per_day: Images a day; without it, as they come.
        drift: False alarms of drift in a stream; 1/month if not given.
    """

    watch: Path | None = None
    until_idle: Annotated[float | None, DURATION] = None
    budget: Annotated[float | None, RATE] = None
    per_day: float | None = None
    drift: Annotated[float | None, RATE] = None

    def asked(self, inputs: Sequence[str]) -> bool:
        """Whether a stream is to be scored; UsageError for options that do not belong together."""
        if self.watch is None and not inputs:
            raise UsageError("score: name images, - for a list on standard input, or a folder to --watch")
        if (self.watch is not None or "-" in inputs) and len(inputs) + (self.watch is not None) > 1:
            raise UsageError("- or --watch: a stream stands alone, without other images")
        if self.watch is None and self.until_idle is not None:
            raise UsageError("--until-idle is for --watch: a list on standard input ends by itself")
        if self.watch is None and "-" not in inputs:
            return self._of_a_set()
        return True

    def _of_a_set(self) -> bool:
        if self.drift is not None:
            raise UsageError(
                "--drift is for a stream, - or --watch: of a set --batch tells whether it shifted"
            )
        check_budget(self.budget, self.per_day)
        return False

    def retuned(self, detector: Detector) -> Detector:
        """The detector of a set, with the threshold of the budget if there is one."""
        from mfimage.ood.rates import budget_alpha

        if self.budget is None or self.per_day is None:
            return detector
        return detector.with_alpha(budget_alpha(self.budget, self.per_day, detector.calibration))

    def open(self, detector: Detector, sigma: float | None) -> Stream:
        """Begin a stream of a calibrated detector."""
        from mfimage.ood.stream import MONTHLY, Stream

        return Stream(detector, self.drift or MONTHLY, self.budget, self.per_day, sigma)


@dataclass
class _Count:
    """What a stream has held so far."""

    images: int = 0
    strange: int = 0
    unread: int = 0
    drifts: int = 0

    def __str__(self) -> str:
        others = {"strange": self.strange, "not read": self.unread, "times drift": self.drifts}
        parts = [f"{number:,} {what}" for what, number in others.items() if number]
        return ", ".join([console.counted(self.images, "image"), *parts])


@dataclass
class _Scorer:
    """Score a stream's images in a model's shape, and print a line for each at once."""

    model: GenerativeModel
    stream: Stream | None  # None where the model is not calibrated
    sigma: float | None
    jsonl: bool
    options: opt.Options
    count: _Count = field(default_factory=_Count)

    def __post_init__(self) -> None:
        from mfimage.datasets.changes import Changes
        from mfimage.datasets.decode import Preparation

        channels, height, width = self.model.shape
        known = self.options.reading
        self.changes = Changes()
        self.prepare = Preparation((height, width), channels, known.max_pixels, known.value_range)
        auto = self.stream is not None and self.stream.calibrated.evidence is not None
        self.ways = rows.WAYS if auto else ()

    def run(self, groups: Iterator[list[str]]) -> None:
        """Score groups of paths until they end, and say how many there were."""
        try:
            for paths in groups:
                self._score(paths)
        except KeyboardInterrupt:
            raise Interrupted(signal.SIGINT, f"interrupted after {self.count}") from None
        finally:
            self.options.notes(self.changes.notes())
        self.options.say(str(self.count))

    def _score(self, paths: Sequence[str]) -> None:
        """Print the lines of some images, in their order, those that cannot be read among them."""
        import torch

        from mfimage.datasets.pixels import as_float
        from mfimage.datasets.stores import read_chunks

        chunks = read_chunks(lambda path: self.prepare(Path(path), path, self.changes), paths)
        read = [one for chunk in chunks for one in chunk]
        good = [(path, image) for path, image in read if not isinstance(image, DataError)]
        found: Iterator[dict[str, Any]] = iter(())
        if good:
            x = torch.stack([torch.from_numpy(as_float(image)).movedim(-1, 0) for _, image in good])
            found = iter(self._judged(x, [path for path, _ in good]))
        for path, image in read:
            self._put(self._unread(path, image) if isinstance(image, DataError) else next(found))

    def _judged(self, x: Tensor, paths: list[str]) -> list[dict[str, Any]]:
        """The rows of images (B, C, H, W)."""
        if self.stream is None:
            from mfimage.ood.scores import score
            from mfimage.ood.statistics import UNSOUND

            errors = score(x, self.model, len(x), self.sigma).tolist()
            why = ["" if math.isfinite(error) else UNSOUND for error in errors]
            return [{"path": p, "score": e, "reason": w} for p, e, w in zip(paths, errors, why, strict=True)]
        before = self.stream.monitor.bets.seen
        found, drift, notes = self.stream.judge(x, paths)
        self.options.notes(notes)
        judged = [row | {"drift": []} for row in rows.judged(paths, found)]
        for alarm in drift:
            judged[alarm.noticed - before - 1]["drift"].append(alarm)
        return judged

    def _unread(self, path: str, error: DataError) -> dict[str, Any]:
        reason = str(error).removeprefix(f"{path}: ")
        if self.stream is None:
            return {"path": path, "score": None, "reason": reason}
        return rows.unreadable(path, reason, self.ways) | {"drift": []}

    def _put(self, row: dict[str, Any]) -> None:
        """Print a line, count it, and say if it tells of drift."""
        cells = map(rows.word, row.values())
        streams.put(console.json_text(row) if self.jsonl else streams.row(*cells))
        verdict, drift = row.get("verdict"), row.get("drift", [])
        self.count.images += 1
        self.count.strange += verdict == "strange"
        self.count.unread += row["score"] is None
        self.count.drifts += len(drift)
        for alarm in drift:
            self.options.say(f"drift: {alarm}")


def score_stream(
    model: str,
    given: Streaming,
    sigma: float | None,
    jsonl: bool,
    fail_on_ood: bool,
    batch_size: int,
    options: opt.Options,
) -> bool:
    """Score images as they come; return whether any was strange."""
    from mfimage.ood import Detector
    from mfimage.ood.detector import DETECTOR
    from mfimage.pretrained import locate

    watch = None
    if given.watch is not None:
        from mfimage.datasets.watching import Watch

        watch = Watch(given.watch)  # before the model is read, so that nothing that comes meanwhile is missed
    place = locate(model)
    flow, stream = options.load(str(place), projects=True), None
    if DETECTOR in flow.measured:
        detector = Detector.load(place, flow)
        detector.batch_size = batch_size
        stream = given.open(detector, sigma)
    elif given.budget or given.drift or fail_on_ood:
        need = "verdicts, a budget and drift need"
        raise ModelError(f"{model}: not calibrated, which {need}: mfimage calibrate IMAGES --model {model}")
    scorer = _Scorer(flow, stream, sigma, jsonl, options)
    if watch is None:
        scorer.run(arriving_paths(cast(BufferedReader, sys.stdin.buffer), batch_size))
    else:
        there = (
            f"; {console.counted(watch.passed, 'image')} already there: passed over" if watch.passed else ""
        )
        options.say(f"watching {given.watch}{there}")
        scorer.run(watch.arrivals(batch_size, given.until_idle))
    return scorer.count.strange > 0
