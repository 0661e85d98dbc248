"""Measures of where defects are found, by hand and beside scikit-learn."""

import pytest
import torch

from mfimage.eval import localisation


def test_aupro_by_hand():
    # Two defects, of two pixels and of one, and twelve good pixels, one of them at .9.
    image = torch.tensor([[1.0, 0.5, 0, 0, 0.8], [0.9, 0, 0, 0, 0], [0, 0, 0, 0, 0]])[None, :, :]
    mask = torch.tensor([[1, 1, 0, 0, 1], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]])[None, :, :].bool()
    counts = localisation.counted(image, mask, localisation.levels_of(image))
    once = torch.ones(1, 1).double()
    assert counts.number.tolist() == [2.0]
    # Overlap is ¼ up to 1/12 of false alarms, and 1 from there to .3.
    expected = (0.25 / 12 + 0.3 - 1 / 12) / 0.3
    assert float(localisation.aupro(counts, once)) == pytest.approx(expected)
    # Half of a defect and half of the good pixels are at .7: on the way there overlap equals false alarms.
    image = torch.tensor([[0.7, 0.7, 0.7, 0, 0, 0]])[None, :, :]
    mask = torch.tensor([[0, 0, 1, 1, 0, 0]])[None, :, :].bool()
    counts = localisation.counted(image, mask, localisation.levels_of(image))
    assert float(localisation.aupro(counts, once)) == pytest.approx(0.15)
    perfect = localisation.counted(mask.float(), mask, localisation.levels_of(mask.float()))
    assert float(localisation.aupro(perfect, once)) == 1.0
    assert float(localisation.pixel_auroc(perfect, once)) == 1.0


def test_counts_measure_what_the_images_would():
    from sklearn.metrics import roc_auc_score

    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(3, 8, 8, generator=generator) < 0.2
    maps = (torch.randn(3, 8, 8, generator=generator) + masks).mul(4).round()  # many are equal
    levels = localisation.levels_of(maps)
    counts = localisation.counted(maps, masks, levels)
    draws = torch.tensor([[1.0, 1, 1], [2, 0, 1]]).double()
    twice = localisation.counted(maps[[0, 0, 2]], masks[[0, 0, 2]], levels)
    for measure in (localisation.aupro, localisation.pixel_auroc):
        assert float(measure(counts, draws)[1]) == pytest.approx(float(measure(twice, draws[:1])[0]))
    area = roc_auc_score(masks.flatten().numpy(), maps.flatten().numpy())
    assert float(localisation.pixel_auroc(counts, draws)[0]) == pytest.approx(area)


def test_means_and_their_intervals(monkeypatch):
    scores = torch.tensor(
        [0.0, 1.0, 2.0, 1.0, 3.0, torch.inf]
    )  # three good ones, one of a kind, two of another
    maps = torch.rand(6, 6, 6, generator=torch.Generator().manual_seed(0))
    masks = {"a": torch.zeros(1, 6, 6).bool(), "b": torch.zeros(2, 6, 6).bool()}
    for mask in masks.values():
        mask[:, :2, :2] = True
    found = localisation.detections(scores, maps, masks)
    assert found["a"].values["image_auroc"] == pytest.approx(0.5)
    assert found["b"].values["image_auroc"] == 1.0
    mean = localisation.means([list(found.values())])["image_auroc"]
    assert mean.value == pytest.approx(0.75)
    assert 0 <= mean.low < 0.75 < mean.high <= 1
    monkeypatch.setattr(localisation, "LEVELS", 9)
    coarse = localisation.detections(scores, maps, masks)["b"].values
    assert coarse["pixel_auroc"] == pytest.approx(found["b"].values["pixel_auroc"], abs=0.1)
