"""Feature extractors of ours as the module that torchmetrics' distances take.

>>> import torch
>>> from mfimage.plugs.torchmetrics import FeatureModule, scattering_features
>>> features = scattering_features(channels=1)  # for FrechetInceptionDistance(feature=features)
>>> features(torch.randint(256, (5, 1, 28, 28), dtype=torch.uint8)).shape, features.num_features
(torch.Size([5, 208]), 208)
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from mfimage._torchvision import import_torchvision
from mfimage.eval import FeatureExtractor, InceptionFeatures, find_inception_weights
from mfimage.eval.features import ScatteringFeatures

import_torchvision()  # torchmetrics does, and cannot beside a CPU build of torch


class FeatureModule(nn.Module):
    """A feature extractor of mfimage as `feature=` of torchmetrics' FID, KID and the like.

    The numbers are those of `mfimage.evaluate`, which takes the same features.

    Args:
        extractor: See `mfimage.eval.FeatureExtractor`.

    Attributes:
        num_features: Length of a vector of features.
    """

    def __init__(self, extractor: FeatureExtractor) -> None:
        super().__init__()
        self.extractor, self.num_features = extractor, extractor.dim

    def forward(self, images: Tensor) -> Tensor:
        """Compute features (B, dim) of images (B, C, H, W), uint8 or floats in [0, 1]."""
        x = images if images.is_floating_point() else images.to(torch.float32) / 255
        return self.extractor(x).to(images.device)


def inception_features(
    weights: str | Path | None = None, device: str = "cpu", resize: str = "pytorch-fid"
) -> FeatureModule:
    """Make a module of the FID Inception on its genuine weights; see `mfimage.eval.InceptionFeatures`.

    Raises:
        InceptionUnavailable: If the weights are not to be had; the message says how they are.
    """
    return FeatureModule(InceptionFeatures(find_inception_weights(weights), device, resize))


def scattering_features(channels: int) -> FeatureModule:
    """Make a module of features that need no weights, of images with 1 or 3 channels: never call it FID."""
    return FeatureModule(ScatteringFeatures(channels))
