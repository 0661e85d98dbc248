"""Denoising with a manifold-learning flow, and the other inverse problems that it solves."""

from __future__ import annotations

from mfimage.denoising.denoise import denoise
from mfimage.denoising.report import Report, examine
from mfimage.denoising.restoring import inpaint, super_resolve

__all__ = ["Report", "denoise", "examine", "inpaint", "super_resolve"]
