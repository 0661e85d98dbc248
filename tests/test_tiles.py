from itertools import pairwise

import pytest
import torch

from mfimage.errors import DataError, UsageError
from mfimage.tiles import OVERLAP, hann, in_tiles, starts

SIZES = [(8, 8), (8, 9), (11, 8), (23, 37), (64, 16)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.5, 0.9])
def test_the_identity_is_exact(size, overlap, generator):
    x = torch.rand(2, 3, *size, generator=generator)
    assert torch.equal(in_tiles(lambda tiles: tiles, x, (8, 8), overlap, batch_size=7), x)


def test_tiles_are_no_more_than_a_batch_and_all_of_one_size(generator):
    seen = []

    def note(tiles):
        seen.append(tuple(tiles.shape))
        return tiles

    in_tiles(note, torch.rand(3, 1, 20, 30, generator=generator), (8, 6), batch_size=5)
    assert {shape[1:] for shape in seen} == {(1, 8, 6)}
    assert max(shape[0] for shape in seen) == 5
    assert sum(shape[0] for shape in seen) == 3 * len(starts(20, 8, 0.5)) * len(starts(30, 6, 0.5))


def test_the_batch_size_changes_nothing(generator):
    x = torch.rand(2, 1, 19, 21, generator=generator)

    def function(tiles):
        return tiles * tiles.mean((1, 2, 3), keepdim=True)

    results = [in_tiles(function, x, (8, 8), batch_size=size) for size in (1, 4, 1000)]
    torch.testing.assert_close(results[0], results[1])
    torch.testing.assert_close(results[0], results[2])


def test_an_image_of_one_tile_is_the_function(generator):
    x = torch.rand(1, 1, 8, 8, generator=generator)
    torch.testing.assert_close(in_tiles(torch.sin, x, (8, 8)), torch.sin(x))
    both = in_tiles(lambda tiles: torch.cat([tiles, torch.sin(tiles)], 1), x, (8, 8))
    torch.testing.assert_close(both, torch.cat([x, torch.sin(x)], 1))


def test_seams_are_smooth():
    """Tiles that differ by a constant are joined without a step."""
    heights = iter(range(1000))
    x = torch.zeros(1, 1, 8, 40)
    joined = in_tiles(lambda tile: tile + next(heights), x, (8, 8), batch_size=1)[0, 0]
    assert torch.equal(joined[0], joined[7])
    assert joined[0].diff().abs().max() < 0.45  # of steps of 1 between tiles that begin 4 pixels apart
    assert joined[0].diff().min() >= 0


@pytest.mark.parametrize("length", [8, 9, 12, 13, 31, 100])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.8])
def test_tiles_cover_a_line_and_overlap_as_asked(length, overlap):
    at = starts(length, 8, overlap)
    assert (at[0], at[-1]) == (0, length - 8)
    gaps = [b - a for a, b in pairwise(at)]
    assert all(0 < gap <= max(1, 8 * (1 - overlap)) for gap in gaps)


def test_half_moved_windows_add_to_one():
    window = hann(8)
    assert window.min() > 0
    torch.testing.assert_close(window[:4] + window[4:], torch.ones(4, dtype=torch.float64))


def test_too_small_an_image_and_a_wrong_overlap_are_refused():
    with pytest.raises(DataError, match="7 × 9 pixels are less than a tile of 8 × 8"):
        in_tiles(torch.sin, torch.zeros(1, 1, 7, 9), (8, 8))
    with pytest.raises(UsageError, match="overlap"):
        in_tiles(torch.sin, torch.zeros(1, 1, 9, 9), (8, 8), 1.0)


def seam(values, at, tile, axis):
    """Mean step of values (B, C, H, W) between pixels across the borders of tiles, over that elsewhere."""
    steps = values.diff(dim=axis).abs().transpose(axis, 0).flatten(1).mean(1)
    borders = {start - 1 for start in at if start} | {start + tile - 1 for start in at[:-1]}
    on = torch.tensor([i in borders for i in range(len(steps))])
    return float(steps[on].mean() / steps[~on].mean())


@pytest.mark.parametrize("what", ["smooth", "photograph"])
def test_no_seams_can_be_seen(generator, what):
    """Results that each tile judges on its own step no more at the borders of tiles than elsewhere."""
    if what == "smooth":
        x = (torch.linspace(0.2, 0.8, 90)[:, None] * torch.linspace(0.4, 1, 101)).expand(1, 1, -1, -1)
    else:
        data = pytest.importorskip("skimage.data")
        x = torch.from_numpy(data.astronaut()[50:140, 180:281].mean(-1))[None, None].float() / 255
    y = x + 0.05 * torch.randn(x.shape, generator=generator)

    def shrink(tile):
        mean = tile.mean((2, 3), keepdim=True)
        return mean + 0.2 * (tile - mean)

    for axis, length in ((2, 90), (3, 101)):
        ratio = {o: seam(in_tiles(shrink, y, (8, 8), o), starts(length, 8, o), 8, axis) for o in (0, OVERLAP)}
        assert ratio[0] > 1.5
        assert ratio[OVERLAP] < 1.1
