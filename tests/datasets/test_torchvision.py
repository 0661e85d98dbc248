import importlib

import pytest

from mfimage._torchvision import import_torchvision


def test_it_imports_and_its_data_sets_work():
    torchvision = import_torchvision()
    assert import_torchvision() is torchvision
    assert hasattr(torchvision.datasets, "FashionMNIST")


def test_other_errors_pass(monkeypatch):
    def fail(name):
        raise RuntimeError("something else")

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(RuntimeError, match="something else"):
        import_torchvision()
