"""Whether every kind of model learns and is used on a device: by tensors that only claim to be elsewhere."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from elsewhere import DEVICE, Elsewhere, elsewhere
from tiny import TINY, VECTORS, bump_images

from mfimage import build
from mfimage.algorithms import ALGORITHMS, Batch, awake
from mfimage.config import NOISE_AWARE
from mfimage.models import ChartedModel

STEPPED = [name for name in ALGORITHMS if name != "free-form"]  # whose forward mode takes no such tensors
CLASSES = ("left", "middle", "right")


def untrained(algorithm, shape, context, config):
    """A model of an algorithm with everything that it can learn, and its settings."""
    phases = {phase.name for phase in ALGORITHMS[algorithm].phases}
    images = len(shape) == 3
    config = replace(config, algorithm=algorithm)
    if images:
        config = replace(
            config,
            sharp="sharpening" in phases and not context,
            noise=0.3 if algorithm in NOISE_AWARE else 0.0,
        )
    classes = CLASSES if images and "classes" in phases and not context else ()
    kind = ALGORITHMS[algorithm].kind
    return build(config.model_config(shape, kind, 0 if kind == "linear" else context, classes)), config


def away(x):
    return None if x is None else Elsewhere(x)


def losses_of(model, algorithm, config, data):
    """Run each phase's first step on the device; give the losses by phase."""
    found = {}
    for phase in ALGORITHMS[algorithm].phases:
        with awake(model, phase) as module:
            parameters = [p for p in module.parameters() if p.requires_grad]
            if not (parameters or phase.closed):
                continue
            batch = data
            if not phase.codes:
                phase.start(model, batch)
            if phase.points:
                batch = data._replace(x=phase.points(model, data.x, data.context).detach())
            if phase.codes:
                phase.start(model, batch)
            if phase.closed:
                continue
            if phase.disturb:
                batch = phase.disturb(batch, config, torch.Generator().manual_seed(0), model.dim)
            loss = phase.loss(phase.within(model) if phase.within else module, batch, config)
            loss.backward()
            assert all(p.grad is None or p.grad.device == DEVICE for p in parameters)
            assert any(p.grad is not None for p in parameters)
            found[phase.name] = float(loss.detach())
            if phase.finish:
                phase.finish(model, data)
    return found


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("algorithm", [name for name in STEPPED if name != "fom"])
def test_every_phase_takes_a_step_on_images_elsewhere(algorithm, conditional):
    x, label = bump_images(40), torch.arange(40) % 3
    theta = torch.linspace(-1, 1, 40)[:, None] if conditional else None
    model, config = untrained(algorithm, (1, 8, 8), int(conditional), TINY)
    with elsewhere(model) as there:
        batch = Batch(away(x), away(theta), label=away(label))
        found = losses_of(there.requires_grad_(), algorithm, config, batch)
    assert found or algorithm == "pca"


@pytest.mark.parametrize("algorithm", STEPPED)
def test_every_phase_takes_a_step_on_vectors_elsewhere(algorithm):
    x = torch.nn.functional.normalize(torch.randn(40, 3), dim=1)
    theta = None if algorithm == "fom" else torch.linspace(-1, 1, 40)[:, None]
    model, config = untrained(algorithm, (3,), int(theta is not None), replace(VECTORS, dim=2, scandal=0.1))
    with elsewhere(model) as there:
        batch = Batch(away(x), away(theta), None if theta is None else away(theta.clone()))
        assert losses_of(there.requires_grad_(), algorithm, config, batch) or algorithm == "pca"


@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if name != "fom"])
def test_every_kind_of_model_is_used_elsewhere(algorithm):
    model, _ = untrained(algorithm, (1, 8, 8), 0, TINY)
    model.initialise(bump_images(40))
    x = bump_images(4)
    with elsewhere(model) as there:
        found = [
            there.log_prob(away(x)),
            there.sample(3, torch.Generator().manual_seed(0)),
            there.project(away(x)),
        ]
        if isinstance(there, ChartedModel):
            directions = there.principal_directions(away(x), 1)
            found += [
                there.metric(there.encode(away(x))),
                *directions,
                there.interpolate(away(x[0]), away(x[1]), 3),
            ]
        if there.noise_aware:
            found.append(there.clear(away(x), 0.1))
        if there.sharpener is not None:
            found.append(there.sharpened().decode(there.encode(away(x))))
        if there.classifier is not None:
            found.append(there.classify(away(x)))
    assert all(one.device == DEVICE for one in found)


def test_the_surrogate_of_the_volume_takes_a_step_without_any_numbers(monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda kind, **how: nullcontext())  # meta tensors know none
    model, config = untrained("free-form", (1, 8, 8), 0, TINY)
    model.initialise(bump_images(40))
    (phase,) = ALGORITHMS["free-form"].phases
    there, x = model.to("meta"), bump_images(8).to("meta")
    loss = phase.loss(there, Batch(x, noise=torch.zeros(8, 2, device="meta")), config)
    loss.backward()
    assert loss.is_meta
    assert all(p.grad is None or p.grad.is_meta for p in there.parameters())
