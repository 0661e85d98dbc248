import pytest
import torch


@pytest.fixture
def double():
    """Float64 by default, and seed 0."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
