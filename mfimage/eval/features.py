"""What turns images into feature vectors: pytorch-fid's Inception, or anything of the same shape."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from mfimage.errors import DataError, UsageError
from mfimage.eval.inception import InceptionWeights, build_inception
from mfimage.pretrained import weights_hash

RESIZES = ("pytorch-fid", "clean-fid")
_CHUNK = 32  # images that pass through the network at once, so that memory stays bounded


class FeatureExtractor(Protocol):
    """A callable on images (B, C, H, W) in [0, 1] that returns features (B, dim)."""

    name: str  # what it is, in words
    dim: int
    weights: str  # first digits of their hash, empty if it has none

    def __call__(self, images: Tensor) -> Tensor: ...  # noqa: D102


def quantise(images: Tensor) -> Tensor:
    """Round images of any shape to what an 8-bit PNG holds, floor(255 x + ½) / 255 cut to [0, 1], float32."""
    return images.to(torch.float32).mul(255).add(0.5).clamp(0, 255).to(torch.uint8).to(torch.float32).div(255)


def _check_finite(images: Tensor) -> None:
    if not images.isfinite().all():
        raise DataError("images hold values that are not finite, so they have no features")


class InceptionFeatures:
    """The 2048 pool3 features of the FID Inception, on pytorch-fid's own graph.

    Images are rounded to 8 bits first, so that the FID of images in memory is the FID of their PNG files.
    Grey images are repeated to three channels. pytorch-fid resizes to 299×299 (bilinear) and scales to
    [-1, 1].

    Args:
        weights: Verified weights, from `find_inception_weights`.
        device: Where the network runs.
        resize: "pytorch-fid" (bilinear, by torch), or "clean-fid" (bicubic and antialiased, by Pillow, each
            channel as floats; its network scales (x − 128) / 128).
        jpeg: Write each image as a JPEG file first, as published numbers of this family do.

    Reference:
        M. Heusel et al., GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium,
        2017, arXiv 1706.08500. M. Seitzer, pytorch-fid: FID Score for PyTorch, 2020.
    """

    dim = 2048

    def __init__(
        self,
        weights: InceptionWeights,
        device: torch.device | str = "cpu",
        resize: str = "pytorch-fid",
        jpeg: bool = False,
    ) -> None:
        if resize not in RESIZES:
            raise UsageError(f"resize {resize!r}: choose from {', '.join(RESIZES)}")
        self.name = f"inception-2015-12-05 pool3 ({resize}{', JPEG' if jpeg else ''})"
        self.weights = weights.sha256[:12]
        self._clean, self._jpeg, self._device = resize == "clean-fid", jpeg, torch.device(device)
        network = build_inception(weights.tensors)
        # Channels last is 1.4 times faster on a CPU and moves the features by less than 1e-5.
        self._network = network.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Compute features (B, 2048) float32 on the CPU of images (B, 1 or 3, H, W), cut to [0, 1].

        Raises:
            DataError: Another shape, or values that are not finite.
        """
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            raise DataError(f"Inception takes images (B, 1 or 3, H, W); got {tuple(images.shape)}")
        _check_finite(images)
        if not len(images):
            return torch.empty(0, self.dim)
        return torch.cat([self._features(part.to(self._device)) for part in images.split(_CHUNK)])

    def _features(self, images: Tensor) -> Tensor:
        x = through_jpeg(images) if self._jpeg else quantise(images)
        if self._clean:
            x = clean_resize(x).sub(128).div(128).to(self._device).expand(-1, 3, -1, -1)
        else:
            x = x.expand(-1, 3, -1, -1)
            x = 2 * F.interpolate(x, (299, 299), mode="bilinear", align_corners=False) - 1
        return self._network(x).cpu()


def through_jpeg(images: Tensor, quality: int = 75) -> Tensor:
    """Write images (B, C, H, W) as JPEG (Pillow's quality, by default its own) and read them back."""
    from mfimage.datasets.pictures import array_of

    found = []
    for image in images:
        stream = io.BytesIO()
        Image.fromarray(array_of(image)).save(stream, "JPEG", quality=quality)
        pixels = torch.from_numpy(np.array(Image.open(stream)))
        found.append(pixels[None] if pixels.ndim == 2 else pixels.movedim(-1, 0))
    return torch.stack(found).to(images.device, torch.float32).div(255)


def clean_resize(images: Tensor, size: int = 299) -> Tensor:
    """Resize images (B, C, H, W) in [0, 1] to (B, C, size, size) in 0 … 255, each channel as floats.

    Reference:
        Parmar, Zhang, Zhu, On aliased resizing and surprising subtleties in GAN evaluation, 2022,
        arXiv 2104.11222.
    """
    planes = images.detach().cpu().mul(255).flatten(0, 1).numpy()
    resized = [Image.fromarray(plane).resize((size, size), Image.Resampling.BICUBIC) for plane in planes]
    pixels = np.stack([np.asarray(plane).clip(0, 255) for plane in resized])
    return torch.from_numpy(pixels).unflatten(0, images.shape[:2])


class ScatteringFeatures:
    """A feature space that needs no weights, for where there are none of the Inception: never call it FID.

    Of each channel: the image averaged over 8 × 8 cells, and at three halved scales the mean modulus of the
    horizontal, vertical and diagonal Haar details in 4 × 4 cells, images at most of 64 × 64.

    Reference:
        Bruna, Mallat, Invariant scattering convolution networks, 2013, arXiv 1203.1513. Veeramacheneni,
        Wolter, Gall et al., Fréchet wavelet distance, 2023, arXiv 2312.15289.
    """

    name = "fd-scattering"
    weights = "v1"

    def __init__(self, channels: int) -> None:
        self.dim = channels * (64 + 3 * 3 * 16)

    def __call__(self, images: Tensor) -> Tensor:
        """Compute features (B, dim) float32 on the CPU of images (B, channels, H, W) in [0, 1]."""
        _check_finite(images)
        x = quantise(images.cpu())
        found = [F.adaptive_avg_pool2d(x, 8)]
        if max(x.shape[-2:]) > 64:
            x = F.interpolate(x, (64, 64), mode="area")
        for _ in range(3):
            x = F.pad(x, (0, x.shape[-1] % 2, 0, x.shape[-2] % 2), mode="replicate")
            a, b = x[..., ::2, ::2], x[..., ::2, 1::2]
            c, d = x[..., 1::2, ::2], x[..., 1::2, 1::2]
            details = torch.cat([a - b + c - d, a + b - c - d, a - b - c + d], 1).abs() / 4
            found.append(F.adaptive_avg_pool2d(details, 4))
            x = (a + b + c + d) / 4
        return torch.cat([part.flatten(1) for part in found], 1)


class OwnFeatures:
    """Features of anyone's network: any function of images (B, C, H, W) in [0, 1] to features (B, dim).

    It is given images of the model's channels and size, rounded to 8 bits, on the device of its weights:
    what else it needs, such as three channels, another size or normalised values, it does itself.

    Args:
        function: A module in evaluation mode, or a function. Its attribute `name`, else the name of its class
            or of itself, is that of the features.
        shape: Of the images, (C, H, W).

    Raises:
        UsageError: If it does not give a vector an image, or is a module in training mode.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> None:
        name = getattr(function, "name", None) or getattr(function, "__name__", type(function).__name__)
        self.name = str(name).strip("<>").replace("_", "-")
        weights = getattr(function, "weights", "")
        self.weights = weights if isinstance(weights, str) else ""
        self._device, self._function = torch.device("cpu"), function
        if isinstance(function, nn.Module):
            if function.training:
                raise UsageError(f"extractor {self.name}: in training mode: call its eval() first")
            if function.state_dict():  # without weights two that differ may look alike
                text = f"{function}{weights_hash(function)}"
                self.weights = hashlib.sha256(text.encode()).hexdigest()[:12]
            self._device = next((p.device for p in function.parameters()), self._device)
        self.dim = self(torch.full((2, *shape), 0.5)).shape[1]

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Compute features (B, dim) float32 on the CPU of images (B, C, H, W) in [0, 1]."""
        _check_finite(images)
        return torch.cat([self._features(part) for part in quantise(images).split(_CHUNK)])

    def _features(self, images: Tensor) -> Tensor:
        found = self._function(images.to(self._device))
        if not (isinstance(found, Tensor) and found.ndim > 1 and len(found) == len(images)):
            what = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise UsageError(
                f"extractor {self.name}: gives {what} for {len(images)} images, not features "
                f"({len(images)}, dim)"
            )
        return found.flatten(1).float().cpu()
