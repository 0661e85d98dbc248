"""What an exact log-density costs and how exact it is.

Times are in decoder forwards of the same batch, CPU seconds of one thread, medians of interleaved runs:
`forwards_d32` at 1 × 32 × 32 (D = 1,024), d = 32, batch 16, `forwards_d64` at 3 × 64 × 64, d = 64, batch 4;
`peak_mb_d64` is the largest resident size of a fresh process that does the latter. Beside it, in seconds an
image (`seconds`): generic forward mode by `torch.func`, Jacobian rows by vjp, and the cascade of dense
Jacobians of the original code, one D × D matrix a step of the chart. Of the last two 32 rows are timed and
multiplied up (4 with `--quick`).

`max_error_nats_per_dim` is that of log p in float32 against float64 with generic forward mode, at images that
the trained model has not seen; `coverage_2se` the share of 200 estimates within two of their standard errors;
`exponent_d`, `exponent_pixels` the slopes of log time against log d (8 … 512) and log D (784 … 12,288).
"""

from __future__ import annotations

import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from harness import put, say, start
from torch import Tensor
from torch.func import jvp, vjp, vmap

from mfimage.config import ModelConfig, presets
from mfimage.datasets import load
from mfimage.fit import shuffled
from mfimage.losses import negative_log_likelihood, reconstruction
from mfimage.models import ManifoldFlow, log_volume, tangents
from mfimage.models.build import build
from mfimage.models.geometry import estimate_log_volume, metric

SMALL, LARGE = ((1, 32, 32), 32, 16), ((3, 64, 64), 64, 4)


def moved(shape: tuple[int, ...], dim: int, batch: int) -> tuple[ManifoldFlow, Tensor]:
    """A chart away from where it starts, and images: what it costs does not depend on what it has seen."""
    model = build(ModelConfig(shape, dim), seed=0)
    x = torch.rand(dim + 64 + batch, *shape)
    model.initialise(x)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.02 * p.abs().mean().clamp_min(1e-2) * torch.randn_like(p))
    assert isinstance(model, ManifoldFlow)
    return model.requires_grad_(False), x[:batch]


def median_times(functions: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """CPU seconds of each, the median of rounds in which they take turns."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds + 1):
        for name, function in functions.items():
            began = time.process_time()
            function()
            times[name].append(time.process_time() - began)
    return {name: sorted(spent[1:])[rounds // 2] for name, spent in times.items()}


def generic(model: ManifoldFlow, u: Tensor) -> Tensor:
    """The log-volume by forward mode without rules of our own."""

    def along(direction: Tensor) -> Tensor:
        return jvp(model.decode, (u,), (direction.expand_as(u),))[1].flatten(1)

    return log_volume(vmap(along, out_dims=2)(torch.eye(u.shape[1]).to(u)))


def rows_by_vjp(model: ManifoldFlow, u: Tensor, rows: int) -> None:
    """The first rows of the decoder's Jacobian at one image, a backward pass each."""
    image, pull = vjp(model.decode, u[:1])
    for k in range(rows):
        unit = torch.zeros_like(image)
        unit.view(-1)[k] = 1
        pull(unit)


def cascade(model: ManifoldFlow, u: Tensor, rows: int) -> None:
    """The same of every step of the chart in turn, each a map of R^D, as the original multiplies them."""
    z = torch.nn.functional.pad(u[:1], (0, model.chart.features - model.dim))
    subspace, multiscale = model.chart.subspace, model.chart.multiscale
    for step in (lambda v: subspace.inverse(v)[0], lambda v: multiscale.inverse(v)[0]):
        y, pull = vjp(step, z)
        for k in range(rows):
            unit = torch.zeros_like(y)
            unit.view(-1)[k] = 1
            pull(unit)
        z = y.flatten(1)


def cost(
    case: tuple[tuple[int, ...], int, int], rounds: int, some: int = 32
) -> tuple[float, dict[str, float]]:
    """Forwards that log_prob takes, and seconds an image by it and the other ways."""
    model, x = moved(*case)
    with torch.no_grad():
        u = model.encode(x)
    pixels, batch = math.prod(case[0]), len(x)
    times = median_times(
        {
            "forward": lambda: model.decode(u),
            "ours": lambda: model.log_prob(x),
            "generic": lambda: generic(model, u),
        },
        rounds,
    )
    slow = median_times(
        {"vjp": lambda: rows_by_vjp(model, u, some), "cascade": lambda: cascade(model, u, some)}, 1
    )
    seconds = {"ours": times["ours"] / batch, "generic": times["generic"] / batch}
    seconds |= {name: spent * pixels / some for name, spent in slow.items()}
    say(f"{case}: {times['ours'] / times['forward']:.1f} forwards; seconds an image {seconds}")
    return times["ours"] / times["forward"], seconds


def peak_mb() -> float:
    """Largest resident size of a fresh process that evaluates the large case, in MB."""
    done = subprocess.run([sys.executable, __file__, "--peak"], check=True, capture_output=True, text=True)
    return float(done.stdout.splitlines()[-1])


def trained(seconds: float) -> tuple[ManifoldFlow, Tensor]:
    """An M-flow of clothes at 32 × 32, d = 32, and images it has not seen."""
    images = load("fashion-mini", "train", 32)
    config = presets["demo"]
    model = build(config.model_config(images.shape), seed=0)
    assert isinstance(model, ManifoldFlow)
    model.initialise(images.batch(range(2000)))
    _train(model.chart, lambda x: reconstruction(model.chart, x), images, 0.7 * seconds, config.lr)
    _train(
        model.density,
        lambda x: negative_log_likelihood(model.density, model.encode(x).detach()),
        images, 0.3 * seconds, config.density_lr,
    )  # fmt: skip
    return model.requires_grad_(False), load("fashion-mini", "test", 32).batch(range(32))


def _train(
    module: torch.nn.Module, loss: Callable[[Tensor], Tensor], images: object, seconds: float, lr: float
) -> None:
    rows, began, step = shuffled(len(images), 128, seed=0), time.process_time(), 0
    optimiser = torch.optim.AdamW(module.train().parameters(), lr=lr)
    while (share := (time.process_time() - began) / seconds) < 1:
        optimiser.param_groups[0]["lr"] = lr * 0.5 * (1 + math.cos(math.pi * share))
        optimiser.zero_grad()
        loss(images.batch(rows(step))).backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 200.0)
        optimiser.step()
        step += 1
    module.eval()


def exactness(model: ManifoldFlow, x: Tensor, draws: int) -> tuple[float, float]:
    """Largest error of log p in nats a dimension, and coverage of the estimates."""
    ours, exact = model.log_prob(x), []
    double = build(model.config, seed=0).double().requires_grad_(False)
    double.load_state_dict(model.state_dict())
    for part in x.double().split(4):
        u = double.encode(part)
        exact.append(double.density.log_prob(u) - generic(double, u))
    error = float((ours - torch.cat(exact)).abs().max()) / model.dim
    u = model.encode(x[:20])
    truth = log_volume(tangents(model.chart, u))
    generator = torch.Generator().manual_seed(0)
    drawn = [estimate_log_volume(model.chart, u, generator=generator) for _ in range(draws)]
    inside = torch.stack([(d.value - truth).abs() <= 2 * d.standard_error for d in drawn])
    spread = float(torch.stack([d.standard_error for d in drawn]).mean())
    coverage = float(inside.double().mean())
    say(f"error {error:.1e} nats a dimension; coverage {coverage:.3f}, a standard error {spread:.3f} nats")
    return error, coverage


def scaling(dims: list[int], sides: list[int], rounds: int) -> dict[str, dict[int, float]]:
    """CPU seconds of one image's metric and volume against d at 64 × 64 × 3, and against D at d = 32."""
    by_dim, by_pixels, estimated = {}, {}, {}
    for dim in dims:
        model, x = moved((3, 64, 64), dim, 1)
        u = model.encode(x)
        times = median_times(
            {"exact": lambda m=model, w=u: metric(m.chart, w), "l": lambda m=model, w=u: _estimate(m, w)},
            rounds,
        )
        by_dim[dim], estimated[dim] = times["exact"], times["l"]
    for side in sides:
        channels = 1 if side == 28 else 3
        model, x = moved((channels, side, side), 32, 1)
        u = model.encode(x)
        times = median_times({"exact": lambda m=model, w=u: metric(m.chart, w)}, rounds)
        by_pixels[channels * side * side] = times["exact"]
    say(f"by d {by_dim}, estimated {estimated}, by D {by_pixels}")
    return {"by_dim": by_dim, "by_pixels": by_pixels, "estimated_by_dim": estimated}


def _estimate(model: ManifoldFlow, u: Tensor) -> Tensor:
    return estimate_log_volume(model.chart, u, generator=torch.Generator().manual_seed(0)).value


def exponent(times: dict[int, float]) -> float:
    """Slope of log time against log size, by least squares."""
    logs = torch.tensor([[math.log(size), math.log(spent)] for size, spent in times.items()])
    x, y = (logs - logs.mean(0)).unbind(1)
    return float((x * y).sum() / x.square().sum())


def plot(curves: dict[str, dict[int, float]], path: Path) -> None:
    """Draw the times."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    left.loglog(*zip(*curves["by_dim"].items(), strict=True), "o-", label="exact")
    left.loglog(*zip(*curves["estimated_by_dim"].items(), strict=True), "s--", label="estimate, 32 probes")
    left.set(xlabel="d, at D = 12,288", ylabel="CPU seconds an image")
    left.legend()
    right.loglog(*zip(*curves["by_pixels"].items(), strict=True), "o-")
    right.set(xlabel="D, at d = 32")
    figure.savefig(path, dpi=110)


def on_cuda() -> dict[str, float | None]:
    """Seconds and peak memory of 10,000 exact log-densities at 64 × 64 × 3, d = 64, where there is a GPU."""
    if not torch.cuda.is_available():
        say("no CUDA device: its figures are null")
        return {"cuda_seconds_10000": None, "cuda_peak_gb": None}
    model, x = moved((3, 64, 64), 64, 250)
    model.cuda()
    model.log_prob(x[:8].cuda())
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(40):
        model.log_prob(x.cuda())
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() / 2**30
    return {"cuda_seconds_10000": time.perf_counter() - began, "cuda_peak_gb": peak}


def main() -> None:
    """Measure it all."""
    if "--peak" in sys.argv:
        torch.set_num_threads(1)
        model, x = moved(*LARGE)
        model.log_prob(x)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    quick = start(__doc__)
    forwards_small, seconds_small = cost(SMALL, 3, 4) if quick else cost(SMALL, 15)
    forwards_large, seconds_large = cost(LARGE, 1, 4) if quick else cost(LARGE, 9)
    error, coverage = exactness(*trained(2 if quick else 200), 1 if quick else 10)
    dims, sides = ([4, 16], [28, 32]) if quick else ([8, 16, 32, 64, 128, 256, 512], [28, 32, 48, 64])
    curves = scaling(dims, sides, 1 if quick else 5)
    if not quick:
        plot(curves, Path(__file__).with_name("density.png"))
    put(
        quick,
        forwards_d32=forwards_small,
        forwards_d64=forwards_large,
        peak_mb_d64=peak_mb(),
        seconds={"d32": seconds_small, "d64": seconds_large},
        max_error_nats_per_dim=error,
        coverage_2se=coverage,
        exponent_d=exponent(curves["by_dim"]),
        exponent_pixels=exponent(curves["by_pixels"]),
        scaling=curves,
        threads=torch.get_num_threads(),
        **on_cuda(),
    )


if __name__ == "__main__":
    main()
