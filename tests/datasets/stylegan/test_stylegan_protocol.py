import sys
import types

import numpy as np
import pytest
import torch

from mfimage.datasets.stylegan import Architecture, Custom, Generator, Styled, StyleGAN2, seeded_generator
from mfimage.datasets.stylegan.protocol import MobileStyleGAN
from mfimage.errors import ModelError, UsageError


def bright(w):
    return torch.sigmoid(w[:, :1, None, None] * torch.linspace(0, 1, 12).view(1, 1, 3, 4))


def test_any_function_becomes_a_generator():
    made = Custom(bright, z_dim=2, mapping=lambda z: 2 * z)
    assert isinstance(made, Generator)
    assert made.shape == (1, 3, 4)
    assert torch.equal(made.synthesis(made.mapping(torch.ones(1, 2))), bright(torch.full((1, 2), 2.0)))
    assert (
        made.fingerprint()
        == Custom(bright, 2, lambda z: 2 * z).fingerprint()
        != Custom(bright, 2).fingerprint()
    )
    assert Custom(bright, 2, fingerprint="v1").fingerprint() == "v1"


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda w: bright(w) + 1, r"in \[0, 1\]"),
        (lambda w: bright(w) * float("nan"), r"in \[0, 1\]"),
        (lambda w: bright(w)[0], "should give a tensor"),
        (lambda w: bright(w).numpy(), "should give a tensor"),
        (lambda w: bright(w).expand(-1, 2, -1, -1), "1 or 3 channels"),
        (lambda w: bright(w).byte(), "images of floats"),
    ],
)
def test_a_function_that_gives_no_images_is_an_error(function, message):
    with pytest.raises(ModelError, match=message):
        Custom(function, 2, name="mine")


def test_a_style_is_fixed_by_its_wrapper(generator):
    network = StyleGAN2(Architecture(3, 4, 8, 3, (2, 2), labels=2))
    for tensor in network.state_dict().values():
        tensor.copy_(torch.randn(tensor.shape, generator=generator))
    z = torch.randn(2, 3, generator=generator)
    styled = Styled(network, 0.5, 1, label=1)
    assert isinstance(styled, Generator)
    wanted = network.mapping(z, torch.tensor([[0.0, 1.0]]).expand(2, -1), 0.5, 1)
    assert torch.equal(styled.mapping(z), wanted)
    assert torch.equal(styled.synthesis(wanted), network.synthesis(wanted))
    assert torch.equal(wanted[:, 1:], network.mapping(z, torch.tensor([[0.0, 1.0]]).expand(2, -1))[:, 1:])
    prints = {
        Styled(network, *rest, label=k).fingerprint() for rest in ((), (0.5,), (0.5, 1)) for k in (0, 1)
    }
    assert len(prints) == 6


def test_labels_and_latents_must_fit():
    seeded = seeded_generator(8, 0)
    with pytest.raises(UsageError, match="0 labels, and label 1 was asked for"):
        Styled(seeded, label=1)
    with pytest.raises(UsageError, match="a truncation is a number, and not nan"):
        Styled(seeded, float("nan"))
    labelled = StyleGAN2(Architecture(3, 4, 8, 3, (2, 2), labels=2))
    for label in (None, 2):
        with pytest.raises(UsageError, match=f"2 labels, and label {label} was asked for"):
            Styled(labelled, label=label)
    with pytest.raises(UsageError, match=r"labels of shape \(1, 2\)"):
        labelled.mapping(torch.zeros(1, 3))
    with pytest.raises(UsageError, match=r"labels of shape \(1, 2\)"):
        labelled.mapping(torch.zeros(1, 3), torch.zeros(1, 3))
    with pytest.raises(UsageError, match=r"labels of shape \(1, 0\)"):
        seeded.mapping(torch.zeros(1, 64), torch.zeros(1, 2))
    with pytest.raises(UsageError, match=r"latents of shape \(n, 64\)"):
        seeded.mapping(torch.zeros(1, 63))


def test_stored_none_and_drawn_noise_differ(generator):
    seeded = seeded_generator(8, 0)
    seeded.synthesis.blocks[1].convolution.strength.fill_(1.0)
    seeded.synthesis.blocks[1].convolution.noise.fill_(0.5)
    w = seeded.mapping(torch.randn(2, 64, generator=generator))
    stored, none = seeded.synthesis(w), seeded.synthesis(w, False)
    drawn = [seeded.synthesis(w, torch.Generator().manual_seed(1)) for _ in range(2)]
    assert torch.equal(*drawn)
    assert all((a - b).abs().max() > 1e-3 for a, b in ((stored, none), (stored, drawn[0]), (none, drawn[0])))


class FakeNetwork:
    def __init__(self, path, *_):
        self.path = path

    def output(self, index):
        return index

    def __call__(self, row):
        assert row.shape == (1, 512)
        assert row.dtype == np.float32
        if "Mapping" in str(self.path):
            return {0: row + 1}
        return {0: np.broadcast_to(row[:, :3, None, None], (1, 3, 1024, 1024)).copy()}


class FakeCore:
    def read_model(self, path):
        if not path.read_bytes():
            raise RuntimeError("cannot parse\nat all")
        return path

    def compile_model(self, path, device, settings):
        assert device == "CPU"
        return FakeNetwork(path)


@pytest.fixture
def faces(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", types.SimpleNamespace(Core=FakeCore))
    for name in ("MappingNetwork", "SynthesisNetwork"):
        for suffix in ("xml", "bin"):
            (tmp_path / f"{name}.{suffix}").write_text(name)
    return tmp_path


def test_mobilestylegan_is_a_generator(faces):
    light = MobileStyleGAN(faces)
    assert isinstance(light, Generator)
    w = light.mapping(torch.zeros(2, 512))
    assert torch.equal(w, torch.ones(2, 512))
    images = light.synthesis(torch.tensor([[-1.0, 0.0, 3.0]]).repeat(2, 171)[:, :512])
    assert images.shape == (2, *light.shape)
    assert images[1, :, 5, 7].tolist() == [0, 0.5, 1]
    before = light.fingerprint()
    (faces / "SynthesisNetwork.bin").write_text("other")
    assert light.fingerprint() != before
    with pytest.raises(UsageError, match="rows of 512"):
        light.mapping(torch.zeros(2, 64))


def test_missing_or_damaged_faces_say_what_to_do(faces, monkeypatch):
    (faces / "SynthesisNetwork.xml").write_text("")
    with pytest.raises(ModelError, match="cannot parse"):
        MobileStyleGAN(faces)
    (faces / "SynthesisNetwork.xml").unlink()
    with pytest.raises(ModelError, match="no such file"):
        MobileStyleGAN(faces)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="--no-deps random-face"):
        MobileStyleGAN()
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UsageError, match="pip install openvino"):
        MobileStyleGAN(faces)
