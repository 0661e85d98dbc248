"""Models saved in format mfimage-1 must load while the format has this name; seeds give what they gave."""

import hashlib

import pytest
import torch
from laws import perturb

from mfimage.config import ModelConfig
from mfimage.errors import UsageError
from mfimage.models.build import build

SMALL = {"width": 2, "hidden": 8, "density_steps": 1, "density_width": 8}
SAVED = {  # name → digest of the names and shapes of its weights, log_prob of two examples
    "manifold-flow": ("27effdaddf3ce33c", [-4.92959, -6.34018]),
    "encoder-flow": ("9f6a3a653530ff7f", [-5.39549, -5.26177]),
    "linear": ("a79e642493d15233", [-4.84365, -7.02477]),
    "sphere": ("0664fb51007b26c3", [-9.1031, -7.5301]),
    "pie": ("0d2aa8f99d2fc493", [-12.3824, -27.9141]),
    "ambient-flow": ("2c1dc9c1ff046740", [-6.12173, -9.10139]),
    "autoencoder": ("781b5006e043c906", [-5.54241, -6.602]),
    "manifold-flow, images": ("16310a005f023e45", [-5.96046, -6.25023]),
    "encoder-flow, images": ("9b4392f08ce26e9b", [-5.34089, -5.32075]),
    "autoencoder, images": ("ee5a8712c1b70121", [-5.71813, -5.19585]),
    "linear, images": ("0890a360b6a6d03b", [-4.91959, -8.54551]),
}


def made(name):
    kind, _, images = name.partition(", ")
    shape = (3, 10, 8) if images else (6,)
    levels = ((1, 2), (1, 1)) if images else ()
    noise = kind == "encoder-flow" and bool(images)
    return build(
        ModelConfig(shape, 5, levels, kind=kind, noise_aware=noise, context=2 * (kind == "pie"), **SMALL),
        seed=3,
    )


@pytest.mark.parametrize("name", SAVED)
def test_names_in_files_and_seeded_weights_are_what_they_were(name):
    digest, log_prob = SAVED[name]
    model = perturb(made(name), 0.2)
    described = [(key, tuple(value.shape)) for key, value in sorted(model.state_dict().items())]
    assert hashlib.sha256(repr(described).encode()).hexdigest()[:16] == digest
    x = torch.linspace(0, 1, 2 * torch.Size(model.shape).numel()).view(2, *model.shape)
    theta = torch.ones(2, 2) if model.conditional else None
    assert model.log_prob(x, theta).tolist() == pytest.approx(log_prob, rel=1e-4)


@pytest.mark.parametrize("kind", ["pie", "ambient-flow"])
def test_a_density_on_the_whole_space_allows_no_padding(kind):
    with pytest.raises(UsageError, match="without padding"):
        build(ModelConfig((1, 7, 8), 3, ((1, 1),), kind=kind))


def test_the_global_random_state_is_left_alone_and_the_seed_decides():
    before = torch.get_rng_state()
    first, again, other = (build(ModelConfig((6,), 2), seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)
