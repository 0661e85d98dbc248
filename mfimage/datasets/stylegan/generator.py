"""The generator of StyleGAN2, latents z to styles w to images, and its safetensors file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from mfimage.datasets.stylegan.layers import Colour, Convolution, Mapping, Noise, upsample
from mfimage.errors import ModelError, boundary
from mfimage.modes import plainly
from mfimage.tensors import load_state, read_metadata, read_tensors, save_tensors

RESOLUTIONS = tuple(2**k for k in range(2, 11))
_MOST = 2**16  # of any length, and layers: far above every published network
_DEEPEST = 64
_FORMAT = "mfimage-stylegan2"


@dataclass(frozen=True)
class Architecture:
    """The sizes that fix a generator.

    Attributes:
        z_dim: Length of z.
        w_dim: Length of w, and of the mapping's hidden layers.
        resolution: Height and width of the images, a power of two from 4 to 1024.
        channels: 1 or 3.
        widths: Features at 4×4, 8×8, …, one number a resolution.
        depth: Layers of the mapping.
        labels: Length of a label, 0 without labels.
        limit: Bound of features and colours, as networks trained in half precision have; None: no bound.
    """

    z_dim: int
    w_dim: int
    resolution: int
    channels: int
    widths: tuple[int, ...]
    depth: int = 8
    labels: int = 0
    limit: float | None = None

    def __post_init__(self) -> None:
        lengths = (self.z_dim, self.w_dim, self.depth, *self.widths, self.labels + 1)
        if not all(type(n) is int and 0 < n <= _MOST for n in (*lengths, self.resolution, self.channels)):
            raise ModelError(f"a StyleGAN2's lengths are whole numbers from 1 to {_MOST}")
        if self.depth > _DEEPEST:
            raise ModelError(f"a StyleGAN2's mapping has at most {_DEEPEST} layers")
        if self.resolution not in RESOLUTIONS or self.channels not in (1, 3):
            raise ModelError(
                f"images of {self.resolution} × {self.resolution} pixels and {self.channels} channels: "
                "a StyleGAN2 is read with a power of two from 4 to 1024, and 1 or 3 channels"
            )
        if len(self.widths) != RESOLUTIONS.index(self.resolution) + 1:
            raise ModelError("a StyleGAN2 has a number of features for each resolution from 4 up to its own")
        if self.limit is not None and not 0 < self.limit < float("inf"):
            raise ModelError("a StyleGAN2's bound of features is a positive number or none")


class Block(nn.Module):
    """One resolution: one or two convolutions, and colours that are added to the image."""

    def __init__(self, inputs: int, outputs: int, resolution: int, a: Architecture) -> None:
        super().__init__()
        self.up = Convolution(inputs, outputs, a.w_dim, resolution, True, a.limit) if inputs else None
        self.convolution = Convolution(outputs, outputs, a.w_dim, resolution, False, a.limit)
        self.colour = Colour(outputs, a.channels, a.w_dim, a.limit)

    def forward(self, x: Tensor, w: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """Compute features and colours; w, shape (n, 2 or 3, w_dim), holds a style for each layer."""
        if self.up is not None:
            x = self.up(x, w[:, 0], noise)
        x = self.convolution(x, w[:, -2], noise)
        return x, self.colour(x, w[:, -1])


class Synthesis(nn.Module):
    """The synthesis network with skip outputs: image = Σ_k upsample^(K−k)(colours of resolution k)."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        widths = architecture.widths
        self.constant = nn.Parameter(torch.zeros(widths[0], 4, 4, dtype=torch.float32))
        self.blocks = nn.ModuleList(
            Block(before, width, 4 * 2**k, architecture)
            for k, (before, width) in enumerate(zip((0, *widths[:-1]), widths, strict=True))
        )

    def forward(self, w: Tensor, noise: Noise = True) -> Tensor:
        """Compute images (n, C, H, W) in [0, 1] from styles (n, count, w_dim): `raw` from −1 … 1, clipped."""
        return (self.raw(w, noise) + 1).div(2).clamp(0, 1)

    @plainly
    def raw(self, w: Tensor, noise: Noise = True) -> Tensor:
        """Compute images about in −1 … 1, not clipped; noise True is the stored, a generator makes new."""
        x = self.constant.expand(len(w), -1, -1, -1)
        image: Tensor | None = None
        for k, block in enumerate(self.blocks):
            # The colours share their style with the next block's first convolution.
            x, colours = block(x, w[:, max(2 * k - 1, 0) : 2 * k + 2], noise)
            image = colours if image is None else upsample(image) + colours
        assert image is not None
        return image


class StyleGAN2(nn.Module):
    """A StyleGAN2 generator, a `Generator`: its halves are mapping(z) → w and synthesis(w) → images.

    It is made with weights of zero, and filled by `load_generator`, `import_network` or `seeded_generator`.

    Reference:
        Karras, Laine, Aittala, Hellsten, Lehtinen, Aila, Analyzing and Improving the Image Quality of
        StyleGAN, 2020, arXiv 1912.04958.
    """

    def __init__(self, architecture: Architecture, name: str = "stylegan2") -> None:
        super().__init__()
        a = architecture
        self.architecture, self.name, self.z_dim = a, name, a.z_dim
        self.shape = (a.channels, a.resolution, a.resolution)
        self.mapping = Mapping(a.z_dim, a.w_dim, a.depth, a.labels, count=2 * len(a.widths))
        self.synthesis = Synthesis(architecture)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Compute images (n, C, H, W) in [0, 1] of latents (n, z_dim)."""
        return self.synthesis(self.mapping(z, labels))

    def fingerprint(self) -> str:
        """Compute the SHA-256 of the sizes and of every weight."""
        digest = hashlib.sha256(json.dumps(asdict(self.architecture), sort_keys=True).encode())
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


def save_generator(generator: StyleGAN2, path: str | Path) -> None:
    """Write a generator as one safetensors file, whole or not at all: weights, and sizes in its header."""
    sizes = json.dumps(asdict(generator.architecture))
    save_tensors(generator.state_dict(), Path(path), {"format": _FORMAT, "architecture": sizes})


def load_generator(path: str | Path) -> StyleGAN2:
    """Read a generator that `save_generator` wrote, onto the CPU, without gradients.

    Raises:
        ModelError: The file is missing, damaged, or not of this kind.
    """
    path = Path(path)
    header = read_metadata(path)
    if header.get("format") != _FORMAT:
        raise ModelError(
            f"{path}: not a generator; `mfimage stylegan import` makes one from a network pickle"
        )
    try:
        with boundary(ModelError, "damaged header"):
            sizes = json.loads(header["architecture"])
            architecture = Architecture(**sizes | {"widths": tuple(sizes["widths"])})
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    return fill_generator(architecture, read_tensors(path), path)


def fill_generator(architecture: Architecture, tensors: dict[str, Tensor], path: Path) -> StyleGAN2:
    """Make a generator of tensors; ModelError unless they fit the sizes."""
    with torch.device("meta"):
        claimed = sum(tensor.numel() for tensor in StyleGAN2(architecture).state_dict().values())
    given = sum(tensor.numel() for tensor in tensors.values())
    if claimed > 2 * given + 2**20:  # sizes that a file only claims must not cost memory
        raise ModelError(f"{path}: its sizes need {claimed} numbers, and it holds {given}")
    generator = StyleGAN2(architecture, path.stem)
    load_state(generator, tensors, path)
    return generator.eval().requires_grad_(False)
