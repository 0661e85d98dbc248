import pytest
import torch
from tiny import TINY, draw_bumps, learn, write_array

SETTINGS = TINY.with_(
    steps=150, noise=(0.0, 0.5), every=50, lr=1e-2, batch_size=32, model={**TINY.model, "noise_width": 8}
)


@pytest.fixture(scope="session")
def noise_aware(tmp_path_factory):
    """A model that learned to remove Gaussian noise."""
    torch.set_num_threads(1)
    directory = tmp_path_factory.mktemp("noise")
    path = write_array(directory / "bumps.npy", draw_bumps(400))
    return learn(path, directory / "run", SETTINGS)
