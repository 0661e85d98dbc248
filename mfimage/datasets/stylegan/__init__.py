"""Images that a generative network makes of a few numbers: manifolds whose true coordinates are known."""

from __future__ import annotations

from mfimage.datasets.stylegan.generator import Architecture, StyleGAN2, load_generator, save_generator
from mfimage.datasets.stylegan.importing import import_network
from mfimage.datasets.stylegan.protocol import Custom, Generator, Styled
from mfimage.datasets.stylegan.seeded import SEEDED_CARD, manifold_generator, seeded_generator

__all__ = [
    "SEEDED_CARD",
    "Architecture",
    "Custom",
    "Generator",
    "StyleGAN2",
    "Styled",
    "import_network",
    "load_generator",
    "manifold_generator",
    "save_generator",
    "seeded_generator",
]
