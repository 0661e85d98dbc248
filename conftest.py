"""Every test is seeded, runs on one thread, and examples of the README write into a temporary folder."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import torch


@pytest.fixture(autouse=True)
def _deterministic(request, monkeypatch, tmp_path):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if isinstance(request.node, pytest.DoctestItem):
        monkeypatch.chdir(tmp_path)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)
