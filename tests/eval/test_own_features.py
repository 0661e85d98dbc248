"""Features of anyone's network in `evaluate`."""

import pytest
import torch
from tiny import draw_bumps, image_set
from torch import nn

from mfimage import evaluate
from mfimage.errors import UsageError
from mfimage.eval import frechet_distance
from mfimage.eval.evaluation import evaluate_once

METRICS = ("fd", "kid", "prdc")


class Network(nn.Module):
    """Five features of grey images of any size."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.Sequential(nn.Conv2d(1, 5, 3, 2), nn.Tanh(), nn.AdaptiveAvgPool2d(1))

    def forward(self, x):
        return self.layers(x).flatten(1)


@pytest.fixture
def sets():
    return image_set(draw_bumps(40, seed=1)), image_set(draw_bumps(120))


def test_anyones_features_give_distances_under_their_name(model, sets, tmp_path):
    test, train = sets
    network = Network().eval()
    report = evaluate(test, model, train, metrics=("fid", *METRICS), extractor=network, cache=tmp_path)
    n = report.numbers
    assert {name.split("_")[0] for name in n} == {
        "fd-Network", "kid-Network", "precision-Network", "recall-Network", "prdc", "coverage-Network"
    }  # fmt: skip
    assert "prdc_density-Network" in n
    assert "fd-Network" in report.skipped["fid"]
    training = train.batch(torch.randperm(120, generator=torch.Generator().manual_seed(0))[:40])
    with torch.no_grad():
        floor = frechet_distance(network(training), network(test.batch(slice(None))))
    assert n["fd-Network_floor"].value == pytest.approx(floor, rel=1e-4)
    assert "(fd-Network)" in report.verdict
    again = evaluate(test, model, train, metrics=METRICS, extractor=Network(1).eval(), cache=tmp_path)
    assert again.numbers["fd-Network"].weights != n["fd-Network"].weights
    assert again.numbers["fd-Network"].value != n["fd-Network"].value


def test_features_of_a_function_are_not_mistaken_for_those_of_another(model, sets, tmp_path):
    test, train = sets

    def found(power):
        def my_features(x):
            return x.pow(power).mean(3).flatten(1)

        report = evaluate(test, model, train, metrics=("fd",), extractor=my_features, cache=tmp_path)
        return report.numbers["fd-my-features_floor"].value

    assert found(1) != found(3)
    assert list(tmp_path.iterdir()) == []


def test_what_was_measured_by_other_features_is_not_read(model, sets, tmp_path):
    test, train = sets
    settings = {"metrics": ("fd",), "cache": tmp_path / "features"}
    for extractor, name in ((Network().eval(), "fd-Network"), (None, "fd-scattering")) * 2:
        found = evaluate_once(tmp_path / "m.json", test, model, train, extractor=extractor, **settings)
        assert name in found.numbers


@pytest.mark.parametrize(
    ("extractor", "message"),
    [
        (Network(), r"extractor Network: in training mode: call its eval\(\) first"),
        (lambda x: x.mean(), r"extractor lambda: gives \(\) for 2 images, not features \(2, dim\)"),
        (lambda x: [x], "extractor lambda: gives list for 2 images"),
    ],
)
def test_what_is_no_extractor_is_refused(model, sets, extractor, message):
    with pytest.raises(UsageError, match=message):
        evaluate(sets[0], model, sets[1], metrics=METRICS, extractor=extractor)
