import hashlib
import json

import numpy as np
import pytest
import torch

from mfimage.datasets import ImageSet, Skipped


@pytest.fixture
def faces() -> ImageSet:
    images = torch.randint(
        0, 256, (10, 3, 4, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    paths = tuple(f"{i}.png" for i in range(10))
    return ImageSet(images, "faces", "train", paths, (Skipped("bad.png", "is empty"),), torch.arange(10))


def test_batches_are_floats_in_order(faces):
    assert len(faces) == 10
    assert faces.shape == (3, 4, 5)
    batch = faces.batch([7, 0, 7])
    assert batch.dtype == torch.float32
    assert torch.equal(batch, faces.images[[7, 0, 7]].float() / 255)
    assert torch.equal(faces.batch(torch.tensor([1])), faces.batch(slice(1, 2)))
    assert [len(one) for one in faces.batches(4)] == [4, 4, 2]
    assert torch.equal(torch.cat(list(faces.batches(4))), faces.batch(slice(None)))


def test_float_images_are_not_scaled_again():
    images = torch.rand(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(ImageSet(images, "x", "all", ("a", "b", "c")).batch([0, 1, 2]), images)


def test_subset_takes_everything_along(faces):
    part = faces.subset([3, 1])
    assert part.paths == ("3.png", "1.png")
    assert part.labels.tolist() == [3, 1]
    assert torch.equal(part.images, faces.images[[3, 1]])
    assert part.skipped == faces.skipped


def test_summary(faces):
    summary = json.loads(json.dumps(faces.summary()))
    assert summary["sha256"] == hashlib.sha256(faces.images.numpy().tobytes()).hexdigest()
    assert summary["shape"] == [3, 4, 5]
    assert summary["count"] == 10
    assert summary["dtype"] == "uint8"
    assert summary["skipped"] == 1
    assert summary["skipped_first"] == [{"path": "bad.png", "reason": "is empty"}]
    values = faces.images.numpy() / 255
    np.testing.assert_allclose([summary["mean"], summary["std"]], [values.mean(), values.std()], rtol=1e-6)


def test_summary_of_several_chunks_hashes_all():
    images = torch.randint(
        0, 256, (2500, 1, 2, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    digest = ImageSet(images, "x", "all", ("",) * 2500).summary()["sha256"]
    assert digest == hashlib.sha256(images.numpy().tobytes()).hexdigest()
