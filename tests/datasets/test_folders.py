import numpy as np
import pytest
from PIL import Image

from mfimage.datasets import load
from mfimage.errors import DataError

RNG = np.random.default_rng(0)


def write_image(path, height=218, width=178):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = RNG.integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(values).save(path)
    return values


@pytest.fixture
def celeba(tmp_path):
    folder = tmp_path / "celeba"
    for i in range(1, 7):
        write_image(folder / "img_align_celeba" / f"{i:06d}.png")
    lines = [f"{i:06d}.jpg {split}" for i, split in enumerate([0, 0, 0, 1, 2], 1)]
    (folder / "list_eval_partition.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_celeba_has_its_official_splits(celeba, monkeypatch):
    monkeypatch.setenv("MFIMAGE_DATA", str(celeba))
    names = {
        split: [path[-10:-4] for path in load("celeba", split, 8).paths] for split in ("train", "val", "test")
    }
    assert names == {"train": ["000001", "000002", "000003"], "val": ["000004"], "test": ["000005"]}
    assert len(load("celeba", "all", 8)) == 6


def test_celeba_is_cut_to_the_square(celeba):
    path = celeba / "celeba" / "img_align_celeba" / "000005.png"
    whole = np.asarray(Image.open(path)).transpose(2, 0, 1)
    for name, box in (("celeba", whole[:, 40:188, 15:163]), ("celeba-178", whole[:, 20:198])):
        images = load(name, "test", root=celeba)
        assert (images.images[0].numpy() == box).all()
        stored = load(name, "test", root=celeba, memory=0)
        assert (stored.batch([0]) == images.batch([0])).all()
    assert load("celeba", "test", 64, root=celeba).shape == (3, 64, 64)


def test_celeba_as_a_comma_separated_list(celeba):
    text = (celeba / "celeba" / "list_eval_partition.txt").read_text()
    (celeba / "celeba" / "list_eval_partition.txt").unlink()
    lines = text.replace(" ", ",")
    (celeba / "celeba" / "list_eval_partition.csv").write_text(f"image_id,partition\r\n{lines}")
    assert len(load("celeba", "train", 8, root=celeba)) == 3


def test_celeba_of_another_size_is_not_cut(celeba):
    write_image(celeba / "celeba" / "img_align_celeba" / "000005.png", 64, 64)
    with pytest.raises(DataError, match=r"000005\.png: is 64×64 .* not 218×178"):
        load("celeba", "test", root=celeba)


def test_celeba_without_its_list(celeba):
    (celeba / "celeba" / "list_eval_partition.txt").write_text("5 images\n")
    with pytest.raises(DataError, match="names none of the images"):
        load("celeba", root=celeba)
    (celeba / "celeba" / "list_eval_partition.txt").unlink()
    with pytest.raises(DataError, match=r"celeba: is not there\. Expected img_align_celeba/ .*list_eval"):
        load("celeba", root=celeba)


@pytest.mark.parametrize("place", ["imagenet", "ILSVRC/Data/CLS-LOC", "."])
def test_imagenet(tmp_path, place):
    for name in ("train/n02/a.png", "train/n01/b.png", "val/n02/c.png", "test/d.png"):
        write_image(tmp_path / place / name, 6, 9)
    train, test = (load("imagenet", split, 4, root=tmp_path) for split in ("train", "test"))
    assert [path[-9:] for path in train.paths] == ["n01/b.png", "n02/a.png"]
    assert train.labels.tolist() == [0, 1]
    assert test.labels.tolist() == [1]
    assert len(load("imagenet", "all", 4, root=tmp_path)) == 3
    with pytest.raises(DataError, match="imagenet: has no split 'valid'; there are train, test, all"):
        load("imagenet", "valid", root=tmp_path)


def test_imagenet_with_a_flat_validation_set_has_no_labels_there(tmp_path):
    for name in ("train/n02/a.png", "val/c.png"):
        write_image(tmp_path / name, 6, 9)
    assert load("imagenet", "test", 4, root=tmp_path).labels is None
    assert load("imagenet", "train", 4, root=tmp_path).labels.tolist() == [0]


def test_imagenet_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"Expected train/ and val/(.|\n)*image-net\.org"):
        load("imagenet", root=tmp_path)
