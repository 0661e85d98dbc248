"""The protocol that all sets keep, and what images in memory add to it."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from mfimage.datasets import ImageSet, Points, Skipped, load
from mfimage.datasets.sets import BadFiles
from mfimage.errors import DataError, UsageError

IMAGES = torch.randint(0, 256, (10, 3, 4, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
ROWS = torch.arange(10.0)[:, None]


@pytest.fixture
def faces() -> ImageSet:
    paths = tuple(f"{i}.png" for i in range(10))
    return ImageSet(IMAGES, "faces", "train", paths, (Skipped("bad.png", "is empty"),), torch.arange(10))


@pytest.fixture(params=["in memory", "floats", "stored", "points", "vectors"])
def data(request, faces, tmp_path):
    """Ten examples of each kind of set."""
    if request.param == "stored":
        for i, image in enumerate(IMAGES):
            Image.fromarray(image.movedim(0, -1).numpy()).save(tmp_path / f"{i}.png")
        return load(tmp_path, "all", memory=0)
    return {
        "in memory": faces,
        "floats": replace(faces, images=IMAGES.float() / 255),
        "points": Points(
            IMAGES.float() / 255, "points", ROWS, 10 * ROWS, torch.cat([ROWS, -ROWS], 1), "test"
        ),
        "vectors": Points(IMAGES.float().flatten(1), "vectors"),
    }[request.param]


def test_the_contract(data):
    whole = data.batch(slice(None))
    assert whole.dtype == torch.float32
    assert whole.shape == (len(data), *data.shape) == (10, *data.shape)
    assert repr(data) == f"<{type(data).__name__} {data.name!r}, {data.split}: 10 of shape {data.shape}>"
    for rows in ([0], [7, 0, 7], torch.tensor([2, -1]), np.array([3, 1]), range(4), []):
        assert torch.equal(data.batch(rows), whole[torch.as_tensor(np.asarray(rows, int))])
    assert torch.equal(data.batch(slice(1, 9, 3)), whole[1:9:3])
    assert [len(part) for part in data.batches(4)] == [4, 4, 2]
    assert torch.equal(torch.cat(list(data.batches(4))), whole)
    assert torch.equal(data[3], whole[3])
    assert torch.equal(data[-1], whole[-1])
    assert torch.equal(torch.stack(list(data)), whole)
    assert data.in_memory().batch(slice(None)).equal(whole)
    with data.prefetched(lambda step: torch.tensor([step, 2 * step]), 4) as batch:
        assert all(torch.equal(batch(step), whole[[step, 2 * step]]) for step in (0, 1, 3))
    for wrong in ([10], [-11]):
        with pytest.raises(IndexError):
            data.batch(wrong)
    with pytest.raises(IndexError):
        data[10]


def test_subsets_take_everything_along(data):
    whole, rows = data.batch(slice(None)), [3, -1, 5, 3]
    part = data.subset(rows)
    assert type(part) is type(data)
    assert (len(part), part.shape, part.name, part.split) == (4, data.shape, data.name, data.split)
    assert torch.equal(part.batch(slice(None)), whole[rows])
    assert torch.equal(part.subset([1, 0]).batch([1, 0]), whole[[3, -1]])
    assert torch.equal(data.subset(slice(2, 4)).batch(slice(None)), whole[2:4])
    for name in ("labels", "theta", "score", "latents"):
        values = getattr(data, name, None)
        expected = None if values is None else values[rows]
        found = getattr(part, name, None)
        assert found is expected is None or torch.equal(found, expected)
    assert part.skipped == data.skipped
    with pytest.raises(IndexError):
        data.subset([10])


def test_a_mask_is_what_it_says(data):
    mask = torch.arange(10) % 3 == 0
    for kind in (mask, mask.numpy(), mask.tolist()):
        assert torch.equal(data.subset(kind).batch(slice(None)), data.batch([0, 3, 6, 9]))
        assert torch.equal(data.batch(kind), data.batch([0, 3, 6, 9]))
    assert torch.equal(data.batch([np.bool_(one) for one in mask]), data.batch([0, 3, 6, 9]))
    for right in ([np.int64(3), 0], np.array([3, 0], np.uint16), torch.tensor([3, 0], dtype=torch.int8)):
        assert torch.equal(data.batch(right), data.batch([3, 0]))
    numbers = (mask.float(), mask.bfloat16(), [0.5], [1.0, 2.0], np.array([0, 1j]), ["1"], [True, 2], [None])
    for wrong in (mask[:9], mask[None], [[1]], [[1], [2, 3]], 3, "rows", *numbers):
        with pytest.raises(UsageError, match=f"{data.name}: rows are integers, or a mask of all 10 examples"):
            data.subset(wrong)
    for wrong in (True, np.bool_(True), 1.0, slice(2), mask):
        with pytest.raises(UsageError, match="rows are integers"):
            data[wrong]
    assert torch.equal(data[np.int64(3)], data[torch.tensor(3)])


def test_the_summary_is_for_json_and_tells_sets_apart(data):
    summary = data.summary()
    assert json.loads(json.dumps(summary)) == summary
    assert list(summary)[:10] == [
        "name", "split", "count", "shape", "dtype", "skipped", "skipped_first", "sha256", "mean", "std",
    ]  # fmt: skip
    assert summary == data.summary() == data.subset(range(10)).summary()
    values = data.batch(slice(None)).double()
    np.testing.assert_allclose(
        [summary["mean"], summary["std"]], [values.mean(), values.std(correction=0)], 1e-6
    )
    hashes = {data.subset(rows).summary()["sha256"] for rows in (range(10), range(9), [1, 0], [0, 1], [0, 1])}
    assert len(hashes) == 4


def test_none_of_it_is_a_set_too(data):
    summary = data.subset([]).summary()
    assert (summary["count"], summary["shape"]) == (0, list(data.shape))
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert data.subset([]).batch(slice(None)).shape == (0, *data.shape)
    assert data.subset(torch.zeros(10, dtype=torch.bool)).batch([]).shape == (0, *data.shape)


def test_pytorch_loads_it(data):
    loader = torch.utils.data.DataLoader(data, batch_size=4, shuffle=True)
    batches = list(loader)
    assert [len(batch) for batch in batches] == [4, 4, 2]
    found = torch.cat(batches).flatten(1)
    assert torch.equal(found.unique(dim=0), data.batch(slice(None)).flatten(1).unique(dim=0))


def test_the_summary_of_images_hashes_their_pixels(faces):
    summary = faces.summary()
    assert summary["sha256"] == hashlib.sha256(faces.images.numpy().tobytes()).hexdigest()
    assert (summary["dtype"], summary["skipped"]) == ("uint8", 1)
    assert summary["skipped_first"] == [{"path": "bad.png", "reason": "is empty"}]
    many = torch.randint(0, 256, (2500, 1, 2, 2), dtype=torch.uint8)  # several chunks
    digest = ImageSet(many, "x", "all", ("",) * 2500).summary()["sha256"]
    assert digest == hashlib.sha256(many.numpy().tobytes()).hexdigest()


def test_paths_and_bytes_of_images(faces):
    assert faces.subset([3, 1]).paths == ("3.png", "1.png")
    assert torch.equal(faces.batch([7]), faces.images[[7]].float() / 255)


def test_bad_files_are_counted_once_and_may_be_too_many():
    bad = BadFiles(0.25, [Skipped("a", "is empty")])
    assert bad.add("b", DataError("b: is cut off")) == Skipped("b", "is cut off")
    bad.add("b", DataError("b: is cut off"))
    assert bad.skipped == (Skipped("a", "is empty"), Skipped("b", "is cut off"))
    assert "b" in bad
    assert "c" not in bad
    bad.check(6)
    with pytest.raises(
        DataError, match=r"2 of 7 files .* share of 0\.25 that(.|\n)*a: is empty(.|\n)*b: is cut"
    ):
        bad.check(5)
    with pytest.raises(DataError, match="1 of 1 files cannot be used"):
        BadFiles(1.0, bad.skipped[:1]).check(0)
    with pytest.raises(DataError, match="2 of 0 files"):
        bad.check_so_far()
    bad.count(4)
    bad.check_so_far()  # one was to be expected, and three standard deviations more are no surprise
    for i in range(3):
        bad.add(f"more {i}", DataError("x"))
    with pytest.raises(DataError, match="5 of 4 files"):
        bad.check_so_far()
