import json
from dataclasses import asdict

import pytest
import torch
from PIL import Image
from tiny import SHORT, draw_bumps, write_images

from mfimage.datasets import gaussian_noise


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A folder of 8 × 8 images, PNG and JPEG, grey and colour, in two folders."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "more").mkdir()
    for index, image in enumerate(draw_bumps(40, seed=3)):
        picture = Image.fromarray(image).convert("RGB" if index % 3 else "L")
        picture.save(folder / ("more" if index % 2 else ".") / f"{index}.{'jpg' if index % 5 else 'png'}")
    return folder


@pytest.fixture
def short(tmp_path):
    path = tmp_path / "short.json"
    path.write_text(json.dumps(asdict(SHORT)))
    return path


@pytest.fixture
def noisy(mfimage):
    """Folders clean/ and noisy/ of six bumps, σ = 0.2; the pixels of the clean ones."""
    clean = draw_bumps(6, seed=4) / 255
    noise = gaussian_noise(torch.from_numpy(clean), 0.2, torch.Generator().manual_seed(0))
    write_images("clean", clean)
    write_images("noisy", noise.numpy())
    return clean


@pytest.fixture
def denoised(mfimage, tiny_run):
    """Run denoise, hold that it succeeds, and give what is said of each image."""

    def call(*arguments, outdir="out"):
        code, out, err = mfimage("denoise", *arguments, "-m", tiny_run, "-o", outdir, "--json")
        assert code == 0, err
        return json.loads(out)["images"]

    return call
