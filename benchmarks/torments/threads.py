"""Threads at once on one model, in any mode of torch: they get what one thread gets alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from torments.children import tried
from torments.place import Place, Torment, Trial, blobs

PROMISE = "other threads and modes change no number"
THREADS, IMAGES, CLOSE = 8, 6, 1e-6

Call = Callable[[Any, Any, int], Any]  # of a detector, images, and a seed; a tensor


def calls() -> dict[str, tuple[bool, Call]]:
    """Give what is called, and whether the model must have a density on the whole space."""
    import torch
    from torch.nn import functional as F

    from mfimage import denoise, inpaint, score, super_resolve

    hole = torch.zeros(16, 16, dtype=torch.bool)
    hole[5:10, 6:11] = True
    drawn = lambda seed: torch.Generator().manual_seed(seed)  # noqa: E731
    methods = ("auto", "projection", "refined", "soft", "map")
    return {
        "score": (False, lambda d, x, n: score(x, d.model)),
        "detector": (False, lambda d, x, n: d.score(x).scores),
        "log_prob": (False, lambda d, x, n: d.model.log_prob(x)),
        "lanczos": (
            False, lambda d, x, n: d.model.log_density(x, method="lanczos", generator=drawn(n)).log_prob
        ),
        "project": (False, lambda d, x, n: d.model.project(x)),
        "sample": (False, lambda d, x, n: d.model.sample(3, drawn(n))),
        "interpolate": (False, lambda d, x, n: d.model.interpolate(x[0], x[1], 4)),
        "directions": (False, lambda d, x, n: d.model.principal_directions(x, 2).images.abs()),
        **{name: (False, lambda d, x, n, name=name: denoise(x, d.model, 0.1, name)) for name in methods},
        "tweedie": (True, lambda d, x, n: denoise(x, d.model, 0.1, "tweedie")),
        "ambient log_prob": (True, lambda d, x, n: d.model.log_prob(x)),
        "inpaint": (False, lambda d, x, n: inpaint(x, hole, d.model)),
        "super_resolve": (False, lambda d, x, n: super_resolve(F.avg_pool2d(x, 2), 2, d.model)),
    }  # fmt: skip


def modes() -> list[Callable[[], Any]]:
    """Give contexts of a thread's own that a caller may be in."""
    import torch

    return [
        ExitStack, ExitStack, torch.no_grad, torch.inference_mode,
        lambda: torch.autocast("cpu", dtype=torch.bfloat16), torch.enable_grad,
    ]  # fmt: skip


def threads(count: int) -> Torment:
    """Make the torment of `count` calls a thread of everything."""

    def torment(place: Place, chance: random.Random) -> Iterator[Trial]:
        seed = chance.randrange(2**31)
        for name, (ambient, call) in calls().items():
            what = f"{THREADS} threads, {count} calls each of {name}, seed {seed}"
            attempt = lambda _, a=ambient, c=call: _together(place.run, a, c, count, seed)  # noqa: E731
            yield from tried(PROMISE, attempt, [(what, None)], seconds=60 + 20 * count)

    return torment


def _together(run: Path, ambient: bool, call: Call, count: int, seed: int) -> str:
    """Compare what threads get with what one gets; in one of the runs the default type changes meanwhile."""
    import torch

    torch.set_num_threads(1)
    detector = _detector(run, ambient)
    images = torch.from_numpy(blobs(2 * IMAGES)[:, None]).float().div(255).view(IMAGES, 2, 1, 16, 16)
    expected = [call(detector, x, n) for n, x in enumerate(images)]

    def work(number: int) -> float:
        chance, worst = random.Random(seed + number), 0.0
        for _ in range(count):
            n = chance.randrange(IMAGES)
            if number == 0:
                torch.set_default_dtype(chance.choice((torch.float32, torch.float64)))
            with chance.choice(modes())():
                found = call(detector, images[n].clone(), n)
            if found.dtype != expected[n].dtype:
                raise TypeError(f"{found.dtype} in the place of {expected[n].dtype}")
            worst = max(worst, float((found - expected[n]).abs().max()))
        return worst

    with ThreadPoolExecutor(THREADS) as pool:
        worst = max(pool.map(work, range(THREADS)))
    return "" if worst <= CLOSE else f"off by {worst:g}"


def _detector(run: Path, ambient: bool) -> Any:
    import torch

    from mfimage import Detector, ModelConfig, build, from_pretrained

    if not ambient:
        model = from_pretrained(run)
        return Detector.load(run / "model", model)
    small = {"width": 2, "noise_width": 2, "near": 6, "hidden": 8, "density_steps": 2, "density_width": 8}
    model = build(ModelConfig((1, 16, 16), 3, kind="pie", **small))
    model.initialise(torch.from_numpy(blobs(40)[:, None]).float() / 255)
    return Detector(model)


TORMENTS: dict[str, Torment] = {"threads": threads(10), "threads-200": threads(200)}
