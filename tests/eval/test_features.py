import io
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image

from mfimage.errors import DataError
from mfimage.eval import (
    InceptionFeatures,
    InceptionUnavailable,
    InceptionWeights,
    find_inception_weights,
    frechet_distance,
    inception,
)
from mfimage.eval.features import ScatteringFeatures, clean_resize, quantise, through_jpeg


def pytorch_fid_network(tensors):
    """What pytorch-fid builds of tensors without a download: the whole network, and its features."""
    from mfimage._torchvision import import_torchvision

    import_torchvision()
    from pytorch_fid import inception as pytorch_fid

    state = {**tensors, "fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}
    with mock.patch.object(pytorch_fid, "load_state_dict_from_url", return_value=state):
        net = pytorch_fid.fid_inception_v3()
    with mock.patch.object(pytorch_fid, "fid_inception_v3", return_value=net):
        return net, pytorch_fid.InceptionV3([3]).eval()


@pytest.fixture(scope="module")
def network():
    """pytorch-fid's own graph with random weights."""
    torch.manual_seed(0)
    with mock.patch.object(torch.nn.Module, "load_state_dict"):
        net, model = pytorch_fid_network({})
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.fill_(2.2)  # or the signal dies out in 94 layers of the default initialisation
            module.bias.data.uniform_(-0.1, 0.1)
    return net, model


@pytest.fixture(scope="module")
def extractor(network):
    tensors = {name: network[0].state_dict()[name] for name in inception.TENSOR_NAMES}
    return InceptionFeatures(InceptionWeights(tensors, Path("random"), "0123456789abcdef"))


def faces(n, channels, seed):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, channels, 8, 8, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=32, mode="bicubic").clamp(0, 1)


def write_png(image, path):
    pixels = np.round(image.double().numpy() * 255).astype(np.uint8).transpose(1, 2, 0)
    Image.fromarray(pixels.squeeze()).save(path, format="png")
    return path


def test_url_and_names_are_those_of_pytorch_fid(network):
    from pytorch_fid.inception import FID_WEIGHTS_URL

    assert inception.WEIGHTS_URL == FID_WEIGHTS_URL
    needed = {n for n in network[0].state_dict() if not n.startswith("fc.") and "num_batches" not in n}
    assert needed == set(inception.TENSOR_NAMES)


def test_quantise_is_what_a_png_holds():
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    file = write_png(x[0], io.BytesIO())
    read = torch.from_numpy(np.asarray(Image.open(file)).copy()).permute(2, 0, 1).float() / 255
    assert torch.equal(quantise(x)[0], read)


def test_quantise_keeps_every_level_and_cuts():
    levels = torch.arange(256) / 255
    assert torch.equal(quantise(levels), levels)
    assert quantise(torch.tensor([-0.1, 1.1, 0.5019])).tolist() == pytest.approx([0, 1, 128 / 255])


def test_features_are_pytorch_fids(network, extractor):
    x = quantise(faces(2, 3, 2))
    with torch.no_grad():
        expected = network[1](x)[0].flatten(1)
    assert expected.std(0).mean() > 1e-2 * expected.std()  # they tell the two images apart
    assert torch.allclose(extractor(x), expected, rtol=1e-4, atol=1e-5 * float(expected.max()))


def test_building_the_network_draws_no_random_numbers(network):
    state = torch.get_rng_state()
    built = inception.build_inception(
        {name: network[0].state_dict()[name] for name in inception.TENSOR_NAMES}
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert not built.training
    assert not any(tensor.requires_grad or tensor.is_meta for tensor in built.state_dict().values())


def test_grey_is_repeated_and_chunks_do_not_matter(extractor, monkeypatch):
    x = faces(3, 1, 3)
    whole = extractor(x)
    assert whole.shape == (3, extractor.dim)
    monkeypatch.setattr("mfimage.eval.features._CHUNK", 2)
    again = extractor(x.repeat(1, 3, 1, 1))
    assert torch.allclose(again, whole, rtol=1e-4, atol=1e-5 * float(whole.max()))


def test_attributes_and_empty_batch(extractor):
    assert extractor.weights == "0123456789ab"
    assert extractor(torch.zeros(0, 3, 8, 8)).shape == (0, 2048)


def test_bad_images(extractor):
    with pytest.raises(DataError, match="not finite"):
        extractor(torch.full((1, 3, 8, 8), torch.nan))
    with pytest.raises(DataError, match=r"\(1, 2, 8, 8\)"):
        extractor(torch.zeros(1, 2, 8, 8))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # pytorch-fid calls sqrtm the old way
def test_genuine_fid_of_memory_is_that_of_png_files(tmp_path):
    try:
        weights = find_inception_weights(download=False)
    except InceptionUnavailable as error:
        pytest.skip(str(error))
    genuine, network = InceptionFeatures(weights), pytorch_fid_network(weights.tensors)[1]
    from pytorch_fid.fid_score import calculate_frechet_distance, get_activations

    sets = [faces(10, 3, 4), faces(10, 1, 5)]
    ours, theirs = [], []
    for i, images in enumerate(sets):
        ours.append(genuine(images))
        files = [write_png(image, tmp_path / f"{i}-{j}.png") for j, image in enumerate(images)]
        theirs.append(get_activations(files, network, batch_size=5, num_workers=0))
    # Both sets lie in the span of their 20 vectors; in its basis the oracle's square root takes no minute.
    basis = np.linalg.qr(np.concatenate(theirs).T)[0]
    (m1, c1), (m2, c2) = (((a @ basis).mean(0), np.cov(a @ basis, rowvar=False)) for a in theirs)
    expected = calculate_frechet_distance(m1, c1, m2, c2)
    assert frechet_distance(*ours) == pytest.approx(expected, abs=1e-3)
    assert genuine.weights == inception.GENUINE_SHA256[:12]


def test_clean_resize_against_clean_fid():
    resize = pytest.importorskip("cleanfid.resize")
    x = torch.rand(2, 3, 20, 28, generator=torch.Generator().manual_seed(0))
    theirs = resize.build_resizer("clean")
    expected = np.stack([theirs(image.mul(255).movedim(0, -1).numpy()) for image in x])
    ours = clean_resize(x).movedim(1, -1).numpy()
    assert ours.shape == (2, 299, 299, 3)
    assert np.abs(ours - expected).max() < 1e-3


def test_clean_resize_antialiases_and_keeps_constants():
    assert clean_resize(torch.full((1, 1, 512, 512), 0.5)).sub(127.5).abs().max() < 1e-3
    chessboard = (torch.arange(598)[:, None] + torch.arange(598)) % 2
    assert clean_resize(chessboard[None, None].float()).sub(127.5).abs().max() < 8


def test_through_jpeg_is_what_the_file_holds(tmp_path):
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    Image.fromarray(x[0].mul(255).round().byte().movedim(0, -1).numpy()).save(tmp_path / "x.jpg")
    expected = np.asarray(Image.open(tmp_path / "x.jpg"))
    assert np.array_equal(through_jpeg(x)[0].movedim(0, -1).mul(255).round().numpy(), expected)
    grey = through_jpeg(torch.full((2, 1, 8, 8), 0.5))
    assert grey.shape == (2, 1, 8, 8)
    assert grey.sub(0.5).abs().max() < 0.01


@pytest.mark.parametrize("size", [8, 28, 31, 96])
def test_scattering_sees_texture_where_the_mean_is_the_same(size):
    features = ScatteringFeatures(1)
    flat = torch.full((1, 1, size, size), 0.5)
    texture = flat + 0.4 * (-1.0) ** torch.arange(size)
    found = features(torch.cat([flat, texture]))
    assert found.shape == (2, features.dim)
    assert found[0, 64:].abs().max() < 1e-6
    assert found[1, 64:].max() > 0.1 or size > 64  # the finest texture is averaged away above 64 pixels
    assert torch.equal(features(texture), found[1:])


def test_scattering_refuses_what_is_not_finite():
    with pytest.raises(DataError):
        ScatteringFeatures(1)(torch.full((1, 1, 8, 8), torch.nan))
