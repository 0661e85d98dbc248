"""The same pixels through every door give the same scores, depth and sizes."""

import json
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from pngs import png
from tiny import draw_bumps

from mfimage import Detector, build, denoise, load, save_pretrained, score
from mfimage.config import ModelConfig
from mfimage.datasets import load_files, to_batch
from mfimage.datasets.decode import file_white

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

COUNT = 6
RNG = np.random.default_rng(3)
GREY = draw_bumps(COUNT, seed=5)
COLOUR = np.stack([GREY, GREY // 2, 255 - GREY], -1)
LOW = RNG.integers(0, 256, (COUNT, 8, 8, 3)).astype(np.uint16)  # bytes below those of the 8-bit images
KINDS = {
    "8-bit grey": GREY,
    "8-bit colour": COLOUR,
    "16-bit grey": GREY.astype(np.uint16) << 8 | LOW[..., 0],
    "16-bit colour": COLOUR.astype(np.uint16) << 8 | LOW,
}


class Items:
    """A map-style data set of rows with a column of images."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return {"image": self.images[index]}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """One of grey and one of colour images, with the folders that they lie in."""
    found = {}
    for channels in (1, 3):
        model = build(ModelConfig((channels, 8, 8), 2, width=2, hidden=8, density_steps=1)).eval()
        model.chart.initialise(torch.rand(40, channels, 8, 8, generator=torch.Generator().manual_seed(0)))
        folder = tmp_path_factory.mktemp("model")
        save_pretrained(model, folder)
        found[channels] = model, folder
    return found


@pytest.fixture(params=KINDS)
def pixels(request):
    return KINDS[request.param]


@pytest.fixture
def folder(pixels, tmp_path):
    (tmp_path / "images").mkdir()
    for i, image in enumerate(pixels):
        (tmp_path / "images" / f"{i}.png").write_bytes(png(image, 8 * pixels.itemsize))
    return tmp_path / "images"


def singles(folder, pixels):
    """Doors for one image: a name and what is given, of each image."""
    white = np.iinfo(pixels.dtype).max
    yield "path", sorted(folder.iterdir())
    yield "name of a path", [str(path) for path in sorted(folder.iterdir())]
    yield "PIL, from a file", [Image.open(path) for path in sorted(folder.iterdir())]
    if pixels.ndim == 3 or pixels.dtype == np.uint8:  # Pillow has no colour of 16 bits in memory
        yield "PIL", [Image.fromarray(image) for image in pixels]
    yield "numpy", list(pixels)
    yield "numpy floats", list(pixels / white)
    yield "torch", [t if t.ndim == 2 else t.movedim(-1, 0) for t in map(torch.from_numpy, pixels)]


def sets(folder, pixels, tmp_path):
    """Doors for many images: a name and what `load` takes."""
    paths = sorted(folder.iterdir())
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for path in paths:
            archive.write(path, path.name)
    rows = [{"image": {"bytes": path.read_bytes(), "path": path.name}} for path in paths]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "images.parquet")
    np.save(tmp_path / "images.npy", pixels)
    np.savez(tmp_path / "images.npz", images=pixels)
    tensor = torch.from_numpy(pixels)
    yield "folder", folder
    yield "zip", tmp_path / "images.zip"
    yield "parquet", tmp_path / "images.parquet"
    yield "npy", tmp_path / "images.npy"
    yield "npz", tmp_path / "images.npz"
    yield "numpy", pixels
    yield "torch", tensor if tensor.ndim == 3 else tensor.movedim(-1, 1)
    yield "data set of arrays", Items(pixels)


def expected(pixels):
    """The batch that all doors lead to, (N, C, H, W)."""
    values = torch.from_numpy(pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max))
    return values[:, None] if values.ndim == 3 else values.movedim(-1, 1)


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
def test_every_door_gives_the_same_pixels_at_the_same_depth(folder, pixels, tmp_path):
    known, deep = expected(pixels), pixels.dtype != np.uint8
    for door, images in singles(folder, pixels):
        found = torch.cat([to_batch(image)[0] for image in images])
        torch.testing.assert_close(found, known, atol=1e-7, rtol=0, msg=door)
    for door, data in sets(folder, pixels, tmp_path):
        images = load(data, "all")
        assert (len(images), images.shape) == (COUNT, known.shape[1:]), door
        assert images.images.dtype == (torch.float32 if deep else torch.uint8), door
        assert torch.equal(images.batch(slice(None)), known), door
        if door in ("folder", "zip", "parquet", "data set of arrays"):
            stored = load(data, "all", memory=0)
            assert torch.equal(stored.batch(slice(None)), known), door
            assert stored.summary()["dtype"] == images.summary()["dtype"], door
            assert stored.in_memory().images.dtype == images.images.dtype, door
    files = load_files([str(path) for path in sorted(folder.iterdir())])
    assert torch.equal(files.batch(slice(None)), known)
    assert {file_white(path) for path in folder.iterdir()} == {np.iinfo(pixels.dtype).max}


@pytest.mark.parametrize("channels", [1, 3])
def test_every_door_gives_the_same_scores(channels, models, folder, pixels, tmp_path, mfimage):
    model, place = models[channels]
    reference = score(np.atleast_3d(pixels).reshape(COUNT, 8, 8, -1), model)
    assert reference.min() > 1e-4
    for door, images in singles(folder, pixels):
        if door == "numpy floats" and pixels.ndim == 4 and channels == 1 and pixels.dtype == np.uint8:
            continue  # luma of bytes is rounded to bytes, as in a data set
        found = [score(image, model) for image in images]
        np.testing.assert_allclose(found, reference, rtol=2e-5, err_msg=door)
    detector = Detector(model, "reconstruction").calibrate(bumps_of(channels), alpha=0.1)
    for door, data in sets(folder, pixels, tmp_path):
        images = load(data, "all", size=8, channels=channels)
        found = torch.cat([score(x, model) for x in images.batches(4)])
        np.testing.assert_allclose(found, reference, rtol=2e-5, err_msg=door)
        if not isinstance(data, np.ndarray | torch.Tensor):  # of which a batch is meant
            np.testing.assert_allclose(detector.score(data).scores, reference, rtol=2e-5, err_msg=door)
    for inputs in ([folder], sorted(folder.iterdir()), [f"{folder}/*.png"]):
        code, out, err = mfimage("score", *inputs, "-m", place, "--json")
        assert code == 0, err
        found = [row["score"] for row in json.loads(out)["scores"]]
        np.testing.assert_allclose(found, reference, rtol=2e-5)


def bumps_of(channels):
    return np.repeat(draw_bumps(100, seed=8)[..., None], channels, -1)


@pytest.mark.filterwarnings("ignore::mfimage.errors.ChangedWarning")  # a grey model drops colour
@pytest.mark.parametrize("channels", [1, 3])
def test_what_comes_back_has_the_depth_that_was_given(channels, models, folder, pixels, mfimage):
    model, place = models[channels]
    arrays = [denoise(image, model) for image in pixels]
    assert {array.dtype for array in arrays} == {pixels.dtype}
    code, _, err = mfimage("denoise", folder, "-m", place, "-o", "out", "--method", "auto", "-q")
    assert code == 0, err
    for path, array in zip(sorted(folder.iterdir()), arrays, strict=True):
        back = denoise(path, model)
        grey_16 = pixels.ndim == 3 and pixels.dtype == np.uint16
        assert back.mode == ("I;16" if grey_16 else "L" if pixels.ndim == 3 else "RGB")
        if grey_16 or pixels.dtype == np.uint8:
            assert (np.asarray(back) == array).all()
        assert file_white(f"out/{path.name}") == np.iinfo(pixels.dtype).max
        if channels == 1 or pixels.ndim == 4:  # grey images of a colour model are written in its colours
            shown = to_batch(f"out/{path.name}", channels=channels)[0]
            known = to_batch(array, channels=channels)[0]
            torch.testing.assert_close(shown, known, atol=1.01 / np.iinfo(pixels.dtype).max, rtol=0)
