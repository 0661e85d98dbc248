"""Models saved in format mfimage-4 must load while the format has this name; seeds give what they gave."""

import hashlib

import pytest
import torch
from laws import perturb

from mfimage.config import ModelConfig
from mfimage.models.build import build

SMALL = {
    "width": 2, "noise_width": 2, "near": 6, "hidden": 8, "density_steps": 1, "density_width": 8,
    "density_bins": 8, "density": "coupling",  # what models had before these could be chosen
}  # fmt: skip
SAVED = {  # name → digest of the names and shapes of its weights, log_prob of two examples
    "manifold-flow": ("9a3511e77fe0a2e8", [-4.92959, -6.34018]),
    "encoder-flow": ("8058e784ce192d58", [-5.39549, -5.26177]),
    "linear": ("a79e642493d15233", [-4.84365, -7.02477]),
    "sphere": ("0664fb51007b26c3", [-9.1031, -7.5301]),
    "pie": ("33ccce96638ece33", [-12.3824, -27.9141]),
    "ambient-flow": ("aee71dac0ca3fa99", [-6.12173, -9.10139]),
    "autoencoder": ("0552024ead2160fe", [-5.54241, -6.602]),
    "manifold-flow, images": ("fd70e0bdc26074c3", [-3.66373, -19.4775]),
    "encoder-flow, images": ("2f926192db65f513", [-4.58758, -6.24421]),
    "autoencoder, images": ("f6b0671577a7d7eb", [-5.08819, -5.30842]),
    "linear, images": ("5da5b0500dff160d", [-4.78706, -15.7146]),
}


def made(name):
    kind, _, images = name.partition(", ")
    shape = (3, 10, 9) if images else (6,)
    levels = 2 if images else 0
    noise = kind == "encoder-flow" and bool(images)
    return build(
        ModelConfig(
            shape, 5, levels=levels, kind=kind, noise_aware=noise, context=2 * (kind == "pie"), **SMALL
        ),
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
def test_a_density_on_the_whole_space_is_one_of_images_of_any_size(kind):
    model = build(ModelConfig((1, 7, 5), 3, kind=kind, near=6, hidden=8, density_steps=1))
    assert model.log_prob(torch.rand(2, 1, 7, 5)).isfinite().all()


def test_the_global_random_state_is_left_alone_and_the_seed_decides():
    before = torch.get_rng_state()
    first, again, other = (build(ModelConfig((6,), 2), seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)
