"""A manifold-learning flow as a denoiser of deepinv, for plug-and-play methods and the like."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mfimage._torchvision import import_torchvision
from mfimage.denoising.restorer import Restorer
from mfimage.errors import DataError, UsageError
from mfimage.inputs import require_images
from mfimage.models import GenerativeModel
from mfimage.noise import Gaussian

try:
    import_torchvision()  # deepinv does, and cannot beside a CPU build of torch
    from deepinv.models import Denoiser as _Denoiser
except ImportError as error:
    raise UsageError(f"mfimage.plugs.deepinv needs deepinv ({error}): pip install deepinv") from error


class Denoiser(_Denoiser):
    """Remove Gaussian noise of any σ: x̂ = D_σ(y).

    Images larger than the model's are denoised in overlapping tiles. There are no gradients: with `unfold`
    all but the denoiser may be trained.

    Args:
        model: Of images, trained with noise (as m-flow and me-flow are by default) or not.
        method: As of `mfimage.denoise`.
        batch_size: Images, or tiles, at a time.
    """

    def __init__(self, model: GenerativeModel, method: str = "auto", batch_size: int = 256) -> None:
        require_images(model)
        super().__init__(device=model.device)
        self.model, self.method, self.batch_size = model, method, batch_size

    @torch.no_grad()
    def forward(self, x: Tensor, sigma: Any = None, **kwargs: Any) -> Tensor:
        """Denoise images.

        Args:
            x: (B, C, H, W), clean ones in [0, 1].
            sigma: Deviation of the noise, a number or one an image; None to estimate it.
            kwargs: What other denoisers are given; ignored, as deepinv's own do.

        Returns:
            Like x, not clipped.

        Raises:
            DataError: If images are smaller than the model's, or have other channels.
        """
        channels, height, width = self.model.shape
        if x.ndim != 4 or x.shape[1] != channels or x.shape[2] < height or x.shape[3] < width:
            raise DataError(
                f"images of shape {tuple(x.shape)}: the model takes (B, {channels}, H, W), "
                f"H at least {height} and W at least {width}"
            )
        y, noise = x.to(next(self.model.parameters())), None
        if sigma is not None:
            levels = self._handle_sigma(sigma, batch_size=len(x), dtype=torch.float64, device="cpu")
            noise = [Gaussian((level, level)) for level in levels.tolist()]
        tiled = x.shape[1:] != self.model.shape
        restorer = Restorer(self.model, self.method, tiled=tiled, batch_size=self.batch_size)
        return restorer.denoised(y, noise).image.to(x)
