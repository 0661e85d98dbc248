"""How many images a second are read from disk, against how many training takes, at 64 × 64 × 3.

200,000 PNG files (1,000 different CelebA faces where they are at hand, else blurred noise) are read once
each in the order of an epoch, in batches of 128, ahead and in threads as training reads them: from a folder,
and from the Parquet shards that `pack` makes of it. `ratio` is the slower of the two rates over that of the
manifold phase of the default preset at d = 64, on as many threads, by the wall clock; `cpu_ratio` is the same
by the CPU's clock, which other work on the machine slows less. `peak_mb_growth` is how much more memory the
process ever had while it read the last nine tenths than while it read the first.
"""

from __future__ import annotations

import io
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from harness import celeba, put, say, start
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from mfimage.config import ModelConfig, presets
from mfimage.datasets import StoredSet, load
from mfimage.datasets.decode import decode
from mfimage.datasets.index import index_folder
from mfimage.datasets.packing import pack
from mfimage.datasets.stores import workers
from mfimage.fit import shuffled
from mfimage.losses import reconstruction
from mfimage.models.build import build

SIDE, DIM, BATCH = 64, 64, 128


def faces(count: int) -> list[bytes]:
    """Different images as PNG."""
    known = celeba()
    if known is not None:
        images = known[0].images[:count]
    else:
        noise = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        smooth = F.interpolate(noise, (SIDE, SIDE), mode="bicubic").clamp(0, 1)
        grain = torch.randn(smooth.shape, generator=torch.Generator().manual_seed(1)) / 50
        images = ((smooth + grain).clamp(0, 1) * 255).round().byte()
    return [encoded(image) for image in images]


def encoded(image: Tensor) -> bytes:
    """(C, H, W) uint8 as PNG."""
    stream = io.BytesIO()
    Image.fromarray(image.movedim(0, -1).numpy()).save(stream, "PNG")
    return stream.getvalue()


def write_folder(folder: Path, contents: list[bytes], files: int) -> None:
    """Write files, 1,000 a folder."""
    for i in range(files):
        if i % 1000 == 0:
            (folder / f"{i // 1000:03d}").mkdir()
        (folder / f"{i // 1000:03d}" / f"{i}.png").write_bytes(contents[i % len(contents)])


@contextmanager
def cache_in(folder: Path) -> Iterator[None]:
    """Keep indices here, not in the user's cache."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(folder)
    try:
        yield
    finally:
        os.environ.pop("XDG_CACHE_HOME")
        if before is not None:
            os.environ["XDG_CACHE_HOME"] = before


def megabytes() -> float:
    """Memory that this process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def read_all(images: StoredSet) -> dict[str, float]:
    """Read an epoch: images a second by the wall clock and by the CPU's, and the growth of memory."""
    rows, steps = shuffled(len(images), BATCH, seed=0), len(images) // BATCH
    early, late = 0.0, 0.0
    began, cpu = time.perf_counter(), time.process_time()
    with images.prefetched(rows, steps) as batches:
        for step in range(steps):
            batches(step)
            if step < steps // 10:
                early = max(early, megabytes())
            else:
                late = max(late, megabytes())
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    count = steps * BATCH
    return {"rate": count / wall, "cpu_rate": count / cpu, "growth": late - early, "mb": late}


def opened(folder: Path) -> StoredSet:
    """A set that stays where it is, all of it."""
    images = load(folder, "all", memory=0)
    assert isinstance(images, StoredSet)
    return images


def listing(folder: Path) -> dict[str, float]:
    """Seconds to list a folder the first time and again, and memory of the list."""
    time.sleep(2.1)  # a folder that has just changed is not remembered
    before, seconds = megabytes(), []
    for _ in range(2):
        began = time.perf_counter()
        index = index_folder(folder)
        seconds.append(time.perf_counter() - began)
    return {"first": seconds[0], "again": seconds[1], "mb": megabytes() - before, "files": len(index.names)}


_contents: list[bytes] = []


def decode_some(begin: int) -> int:
    """Decode 50 images, which processes get when they are forked."""
    for i in range(begin, begin + 50):
        decode(_contents[i % len(_contents)], "image")
    return begin


def threads_and_processes(contents: list[bytes]) -> dict[str, float]:
    """Images a second that are only decoded: by one thread, two threads, two processes."""
    _contents[:] = contents
    rates = {}
    pools: dict[str, Any] = {
        "threads_1": ThreadPoolExecutor(1),
        "threads_2": ThreadPoolExecutor(2),
        "processes_2": ProcessPoolExecutor(2, mp_context=get_context("fork")),
    }
    for name in reversed(pools):  # processes are forked before there are threads
        with pools[name] as pool:
            list(pool.map(decode_some, range(4)))
            began = time.perf_counter()
            list(pool.map(decode_some, range(0, 4000, 50)))
            rates[name] = 4000 / (time.perf_counter() - began)
    return rates


def training_rate(images: StoredSet, threads: int, steps: int) -> dict[str, float]:
    """Images a second of the manifold phase: on a batch in memory, and read ahead while it trains."""
    config = presets["default"]
    chart = build(ModelConfig((3, SIDE, SIDE), DIM), seed=0).chart
    chart.initialise(images.batch(range(4 * DIM)))
    torch.set_num_threads(threads)
    optimiser = torch.optim.AdamW(chart.parameters(), lr=1e-5)
    rows, kept = shuffled(len(images), config.batch_size, seed=0), images.batch(range(config.batch_size))

    def train(batches: Any) -> tuple[float, float]:
        began, cpu = 0.0, 0.0
        for step in range(steps + 1):
            if step == 1:  # the first warms up
                began, cpu = time.perf_counter(), time.process_time()
            x = batches(step)
            optimiser.zero_grad(set_to_none=True)
            reconstruction(chart, x).backward()
            nn.utils.clip_grad_norm_(chart.parameters(), config.clip)
            optimiser.step()
        count = steps * config.batch_size
        return count / (time.perf_counter() - began), count / (time.process_time() - cpu)

    memory = train(lambda step: kept)
    with images.prefetched(rows, steps + 1) as batches:
        stored = train(batches)
    torch.set_num_threads(1)
    return {"memory": memory[0], "memory_cpu": memory[1], "stored": stored[0]}


def measure(folder: Path, contents: list[bytes], files: int, steps: int) -> dict[str, Any]:
    """All of it, in a folder that is removed afterwards."""
    decoding = threads_and_processes(contents)
    say(f"decoding alone, images/s: {decoding}")
    write_folder(folder / "files", contents, files)
    listed = listing(folder / "files")
    say(f"listing: {listed}")
    images = opened(folder / "files")
    plain = read_all(images)
    say(f"folder: {plain}")
    packed: dict[str, float] | None = None
    if find_spec("pyarrow"):
        began = time.perf_counter()
        pack(folder / "files", folder / "shards")
        seconds = time.perf_counter() - began
        packed = {**read_all(opened(folder / "shards")), "pack_rate": files / seconds}
        say(f"shards: {packed}")
    training = training_rate(images, workers(), steps)
    say(f"training: {training}")
    read = (plain, packed) if packed else (plain,)
    return {
        "images_per_second": plain["rate"],
        "shards_images_per_second": packed and packed["rate"],
        "training_images_per_second": training["memory"],
        "ratio": min(one["rate"] for one in read) / training["memory"],
        "cpu_ratio": min(one["cpu_rate"] for one in read) / training["memory_cpu"],
        "training_stored_images_per_second": training["stored"],
        "peak_mb_growth": plain["growth"],
        "shards_peak_mb_growth": packed and packed["growth"],
        "peak_mb": max(plain["mb"], packed["mb"] if packed else 0.0),
        "training_images_per_cpu_second": training["memory_cpu"],
        "images_per_cpu_second": plain["cpu_rate"],
        "shards_images_per_cpu_second": packed and packed["cpu_rate"],
        "pack_images_per_second": packed and packed["pack_rate"],
        "decoding": decoding,
        "listing": listed,
        "threads": workers(),
    }


def main() -> None:
    """Measure, and leave nothing behind."""
    quick = start(__doc__)
    files, steps = (1_000, 2) if quick else (200_000, 12)
    contents = faces(200 if quick else 1000)
    with tempfile.TemporaryDirectory(prefix="mfimage-loader-") as directory:
        folder = Path(directory)
        (folder / "files").mkdir()
        with cache_in(folder / "cache"):
            put(quick, files=files, **measure(folder, contents, files, steps))


if __name__ == "__main__":
    main()
