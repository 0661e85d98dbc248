"""Denoising with a manifold-learning flow, and the other inverse problems that it solves."""

from mfimage.denoising.examination import Examination, examine
from mfimage.denoising.restoring import denoise, inpaint, super_resolve

__all__ = ["Examination", "denoise", "examine", "inpaint", "super_resolve"]
