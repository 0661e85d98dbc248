"""Generative models of other packages, trained here and measured by `mfimage evaluate` like ours."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from harness import LeftOutError, trained_net
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn

from mfimage.datasets import ImageSet
from mfimage.models import GenerativeModel
from mfimage.models.nets import Decoder, Encoder

_COMPONENTS = 10  # of the mixture, as in pythae
_FITTED = 10_000  # images that the mixture is fitted to
_STEPS = 50  # of sampling, of 1,000 in training


class Autoencoder(GenerativeModel):
    """An autoencoder of pythae, with normal codes or a mixture of Gaussians fitted to those of images."""

    weights: Tensor
    means: Tensor
    factors: Tensor

    def __init__(self, net: Any, shape: tuple[int, ...], dim: int, mixture: bool) -> None:
        super().__init__(shape, dim)
        self.net, self.mixture = net, mixture
        self.register_buffer("weights", torch.ones(_COMPONENTS) / _COMPONENTS)
        self.register_buffer("means", torch.zeros(_COMPONENTS, dim))
        self.register_buffer("factors", torch.eye(dim).repeat(_COMPONENTS, 1, 1))

    def loss(self, x: Tensor) -> Tensor:
        """The package's own objective."""
        return self.net({"data": x}).loss

    def fit(self, images: ImageSet) -> None:
        """Fit the mixture, where there is one."""
        if not self.mixture:
            return
        rows = torch.linspace(0, len(images) - 1, min(_FITTED, len(images))).long()
        with torch.no_grad():
            codes = torch.cat([self.encode(images.batch(part)) for part in rows.split(256)])
        found = GaussianMixture(_COMPONENTS, random_state=0).fit(codes.double().numpy())
        self.weights.copy_(torch.from_numpy(found.weights_))
        self.means.copy_(torch.from_numpy(found.means_))
        self.factors.copy_(torch.linalg.cholesky(torch.from_numpy(found.covariances_)))

    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The codes of images; of the VAE their means."""
        return self.net.encoder(x).embedding

    def decode(self, u: Tensor, context: Tensor | None = None) -> Tensor:
        """The images of codes."""
        return self.net.decoder(u).reconstruction.view(-1, *self.shape)

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None, *_: Any, **__: Any) -> Tensor:
        """Draw codes, and decode them."""
        noise = torch.randn(n, self.dim, generator=generator)
        which = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        return self.decode(self.means[which] + (self.factors[which] @ noise[..., None])[..., 0])


class Diffusion(GenerativeModel):
    """The small U-Net and the diffusion of denoising-diffusion-pytorch, sampled by DDIM."""

    has_manifold = False

    def __init__(self, net: Any, shape: tuple[int, ...]) -> None:
        super().__init__(shape, shape[0] * shape[1] * shape[2])
        self.net = net
        self._known: dict[tuple[int, int], Tensor] = {}  # samples, which take minutes and are asked for twice

    def loss(self, x: Tensor) -> Tensor:
        """The package's own objective."""
        return self.net(x)

    def fit(self, images: ImageSet) -> None:
        """Nothing beyond its training."""

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None, *_: Any, **__: Any) -> Tensor:
        """Draw images."""
        key = n, int(torch.randint(2**31, (1,), generator=generator))
        if key not in self._known:
            with torch.random.fork_rng():
                torch.manual_seed(key[1])
                self._known[key] = self.net.sample(batch_size=n)
        return self._known[key]


def _begun(net: nn.Module) -> nn.Module:
    """Start layers that are zero, as ours are beside a linear map, like any: alone they would stay so."""
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and not layer.weight.any():
            layer.reset_parameters()
    return net


def _pythae(kind: str, shape: tuple[int, ...], dim: int, quick: bool) -> Autoencoder:
    """Build a model of pythae on networks of our autoencoder: its own take seconds a step on a CPU."""
    try:
        import pythae.models as peers
        from pythae.models.base.base_utils import ModelOutput
        from pythae.models.nn import BaseDecoder, BaseEncoder
    except ImportError as error:
        raise LeftOutError(f"the package pythae cannot be imported: {error}") from error
    channels, halvings, hidden = (2 if quick else 16), (2 if shape[1] < 32 else 4), (16 if quick else 512)
    parts = 2 if kind == "VAE" else 1  # mean and log-variance

    class Sees(BaseEncoder):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = _begun(Encoder(shape, parts * dim, channels, halvings))

        def forward(self, x: Tensor) -> Any:
            mean, *rest = self.net(x).chunk(parts, 1)
            return ModelOutput(embedding=mean, **({"log_covariance": rest[0]} if rest else {}))

    class Draws(BaseDecoder):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = _begun(Decoder(dim, shape, channels, halvings, hidden))

        def forward(self, u: Tensor) -> Any:
            return ModelOutput(reconstruction=torch.sigmoid(self.net(u)))

    settings = getattr(peers, f"{kind}_Config" if "_" in kind else f"{kind}Config")
    net = getattr(peers, kind)(settings(input_dim=shape, latent_dim=dim), Sees(), Draws())
    return Autoencoder(net, shape, dim, mixture=kind == "RAE_L2")


def _diffusion(shape: tuple[int, ...], dim: int, quick: bool) -> Diffusion:
    try:
        from denoising_diffusion_pytorch import GaussianDiffusion, Unet
    except ImportError as error:
        raise LeftOutError(f"denoising-diffusion-pytorch cannot be imported: {error}") from error
    width, steps = (8, 2) if quick else (32, _STEPS)
    unet = Unet(dim=width, dim_mults=(1, 2, 4), channels=shape[0])
    net = GaussianDiffusion(unet, image_size=shape[1:], timesteps=1000, sampling_timesteps=steps)
    return Diffusion(net, shape)


PEERS: dict[str, tuple[str, Callable[..., Any], float, int]] = {  # row, what builds it, rate, batch
    "vae": ("pythae VAE", partial(_pythae, "VAE"), 1e-3, 64),
    "rae": ("pythae RAE + GMM", partial(_pythae, "RAE_L2"), 1e-3, 64),
    "wae": ("pythae WAE", partial(_pythae, "WAE_MMD"), 1e-3, 64),
    "ddpm": ("diffusion U-Net", _diffusion, 5e-4, 32),
}


def trained_peer(
    name: str, images: ImageSet, dim: int, seconds: float, folder: Path, quick: bool
) -> tuple[Any, float]:
    """Train a peer for CPU seconds by its own objective, or read it."""
    from mfimage._torchvision import import_torchvision

    import_torchvision()
    torch.manual_seed(0)
    _, build, lr, batch_size = PEERS[name]
    model = build(images.shape, dim, quick)
    spent = trained_net(
        model, lambda m, x: m.loss(x), images, seconds, folder, lr, batch_size, lambda m: m.fit(images)
    )
    return model, spent
