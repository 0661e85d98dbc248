import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.metrics import roc_curve as sklearn_roc

from mfimage.errors import DataError, UsageError
from mfimage.eval import auroc, bootstrap, fpr_at_tpr, histogram
from mfimage.eval.score_metrics import aupr, roc_curve, separation


def scores(ties, seed):
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(83, generator=generator), torch.randn(47, generator=generator) + 1
    return (a.mul(2).round(), b.mul(2).round()) if ties else (a, b)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_against_scikit_learn(ties, seed):
    familiar, strange = scores(ties, seed)
    truth = [0] * len(familiar) + [1] * len(strange)
    values = torch.cat([familiar, strange]).tolist()
    assert auroc(familiar, strange) == pytest.approx(roc_auc_score(truth, values), abs=1e-12)
    fpr, tpr, _ = sklearn_roc(truth, values, drop_intermediate=False)
    for level in (0.5, 0.95, 1.0):
        assert fpr_at_tpr(familiar, strange, level) == pytest.approx(fpr[tpr >= level - 1e-12].min())


def test_known_values():
    low, high = torch.tensor([0.0, 1.0]), torch.tensor([2.0, 3.0])
    assert auroc(low, high) == 1
    assert auroc(high, low) == 0
    assert auroc(low, low) == 0.5
    assert fpr_at_tpr(low, high) == 0
    assert fpr_at_tpr(high, low) == 1


def test_threshold_counts_images_not_rounding_errors():
    strange = torch.arange(1.0, 21.0)  # 0.95 · 20 = 19 images: the lowest may be missed
    assert fpr_at_tpr(torch.tensor([1.5]), strange, 0.95) == 0
    assert fpr_at_tpr(torch.tensor([2.5]), strange, 0.95) == 1


def test_an_infinite_score_is_the_strangest():
    assert auroc(torch.tensor([0.0, 1.0]), torch.tensor([torch.inf])) == 1


def test_histogram_shares_one_axis():
    result = histogram({"in": torch.tensor([0.0, 0.1, 1.0]), "out": torch.tensor([2.0, 4.0])}, bins=4)
    assert result["edges"] == [0, 1, 2, 3, 4]
    assert result["shares"]["in"] == pytest.approx([2 / 3, 1 / 3, 0, 0])
    assert result["shares"]["out"] == pytest.approx([0, 0, 0.5, 0.5])


def test_histogram_of_equal_scores():
    assert sum(histogram({"a": torch.ones(3)}, bins=3)["shares"]["a"]) == pytest.approx(1)


@pytest.mark.parametrize("bad", [torch.tensor([1.0, torch.nan]), torch.zeros(0), torch.zeros(2, 2)])
def test_bad_scores(bad):
    good = torch.ones(2)
    for call in (
        lambda: auroc(good, bad),
        lambda: fpr_at_tpr(bad, good),
        lambda: histogram({"a": good, "b": bad}),
    ):
        with pytest.raises(DataError):
            call()


def test_misuse():
    with pytest.raises(UsageError, match="tpr"):
        fpr_at_tpr(torch.ones(2), torch.ones(2), 0)
    with pytest.raises(DataError, match="infinite"):
        histogram({"a": torch.tensor([1.0, torch.inf])})
    with pytest.raises(DataError, match="at least one group"):
        histogram({})


@pytest.mark.parametrize("ties", [False, True])
def test_precision_and_recall_against_scikit_learn(ties):
    familiar, strange = scores(ties, 1)
    truth = [0] * len(familiar) + [1] * len(strange)
    expected = average_precision_score(truth, torch.cat([familiar, strange]).numpy())
    assert aupr(familiar, strange) == pytest.approx(expected)


def test_the_curve_encloses_the_area():
    familiar, strange = scores(False, 2)
    x, y = roc_curve(familiar, strange, 1000)
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
    area = sum((b - a) * (c + d) / 2 for a, b, c, d in zip(x, x[1:], y, y[1:], strict=False))
    assert area == pytest.approx(auroc(familiar, strange))
    assert len(roc_curve(familiar, strange, 20)[0]) == 21


def test_intervals_hold_the_truth_as_often_as_they_say():
    held = 0
    for seed in range(100):
        generator = torch.Generator().manual_seed(seed)
        familiar = torch.randn(150, generator=generator)
        strange = torch.randn(150, generator=generator) + 1
        _, low, high = interval = bootstrap(auroc, familiar, strange)
        held += low <= 0.760250 <= high  # Φ(1/√2)
    assert 89 <= held <= 100
    found = separation(familiar, strange)
    assert (found["auroc"], *found["auroc_interval"]) == interval
    assert found["fpr95_interval"][0] <= found["fpr95"] <= found["fpr95_interval"][1]
    assert (found["n_in"], found["n_out"]) == (150, 150)


def test_an_infinite_score_is_above_all_others():
    familiar, strange = torch.tensor([0.0, 1.0, 3.0]), torch.tensor([2.0, torch.inf])
    large = torch.tensor([2.0, 1e6])
    assert aupr(familiar, strange) == pytest.approx(aupr(familiar, large))
    assert auroc(familiar, strange) == pytest.approx(auroc(familiar, large))
    assert separation(familiar, strange)["aupr"] == pytest.approx(separation(familiar, large)["aupr"])
