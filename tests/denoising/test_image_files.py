"""Files that `mfimage denoise` reads in batches."""

import pytest

from mfimage.denoising import image_files


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(1, [1]), (32, [32]), (33, [33]), (40, [40]), (41, [32, 9]), (65, [32, 33]), (72, [32, 40])],
)
def test_a_few_images_at_the_end_belong_to_the_batch_before(count, sizes):
    parts = [range(count)[part] for part in image_files._parts(count)]
    assert [len(part) for part in parts] == sizes
    assert [i for part in parts for i in part] == list(range(count))
