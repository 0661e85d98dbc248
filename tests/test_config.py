import json
from dataclasses import asdict, replace
from typing import get_args

import pytest

from mfimage import Config, ModelConfig, config, presets
from mfimage.algorithms import ALGORITHMS
from mfimage.cli import calibrate, denoise, evaluate, train
from mfimage.config import Reading
from mfimage.denoising.methods import METHODS
from mfimage.errors import UsageError
from mfimage.eval import METRICS
from mfimage.eval.protocols import PROTOCOLS
from mfimage.experiments import BUDGETS, EXPERIMENTS
from mfimage.models.build import KINDS
from mfimage.ood.scores import SCORES
from mfimage.settings import from_json, read_settings

NESTED = Config(dim=7, size=24, lr=1e-3, precision="bf16", model={"levels": 2, "dropout": 0.5})


@pytest.mark.parametrize(
    "config", [Config(), NESTED, Config(noise=(0.0, 0.5)), ModelConfig((3, 8, 8), 5, levels=2, steps=0)]
)
def test_a_configuration_survives_json(config):
    assert from_json(type(config), json.loads(json.dumps(asdict(config)))) == config


def test_a_file_gives_what_it_says_and_defaults_for_the_rest(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"dim": 5, "model": {"levels": 3}}')
    assert read_settings(Config, path) == Config(dim=5, model={"levels": 3})


def test_model_settings_reach_the_architecture():
    model = NESTED.model_config((1, 24, 24))
    assert (model.dim, model.shape, model.levels, model.dropout) == (7, (1, 24, 24), 2, 0.5)
    assert model.width == ModelConfig((1, 24, 24)).width


@pytest.mark.parametrize(("side", "halvings"), [(4, 1), (8, 1), (28, 2), (32, 2), (64, 3)])
def test_without_levels_images_are_halved_to_about_8_pixels(side, halvings):
    config = ModelConfig((1, side, side), 2)
    assert config.levels == halvings
    assert from_json(ModelConfig, asdict(config)) == config


def test_with_replaces_only_what_is_given():
    assert NESTED.with_(size=None, steps=3, seed=0) == from_json(Config, {**asdict(NESTED), "steps": 3})


def test_steps_and_time_replace_each_other():
    assert Config().seconds == Config().with_(time=600).seconds == 600
    assert Config(time=60).with_(steps=5) == Config(steps=5)
    assert Config(steps=5, density_steps=3).with_(time=60) == Config(time=60)
    assert Config(steps=5).seconds is None
    with pytest.raises(UsageError, match="both say how long"):
        Config().with_(steps=5, time=60)


def test_what_is_left_open_allows_what_was_decided():
    settled = Config(dim=9, time=600, flip=True, shift=1.0, noise=0.0, size=64)
    assert Config().allows(settled)
    assert Config(dim=9).allows(settled)
    assert not Config(dim=8).allows(settled)
    assert not Config(time=60).allows(settled)
    assert not Config().allows(Config(steps=5))
    assert not Config(steps=5).allows(settled)
    width, both = {"width": 4}, {"width": 4, "dropout": 0.3}  # the dropout was decided
    assert Config(model=width).allows(replace(settled, model=both))
    assert not Config(model=both).allows(replace(settled, model=width))
    assert not Config(model={"width": 5}).allows(replace(settled, model=both))


def test_a_run_may_be_given_more_and_nothing_else():
    config = Config(steps=5, density_steps=3)
    assert config.longer(steps=9, density_steps=None) == Config(steps=9, density_steps=3)
    assert Config(time=60).longer(time=90, dim=None) == Config(time=90)
    decided = replace(config, model={"width": 4, "dropout": 0.3})
    assert decided.longer(steps=9, model={"width": 4}) == replace(decided, steps=9)
    with pytest.raises(UsageError, match="keeps its settings, model among them"):
        decided.longer(model={"width": 5})
    for changes in ({"steps": 4}, {"time": 60}, {"dim": 3}, {"seed": 1}):
        with pytest.raises(UsageError, match="can only"):
            config.longer(**changes)


def test_every_name_that_can_be_chosen_stands_for_something():
    pairs = [
        (config.AlgorithmName, ALGORITHMS), (config.KindName, KINDS), (config.PresetName, presets),
        (denoise.MethodName, {"auto", *METHODS}), (calibrate.ScoreName, {"auto", *SCORES}),
        (evaluate.MetricName, METRICS), (evaluate.ProtocolName, PROTOCOLS),
        (train.ExperimentName, EXPERIMENTS), (config.BudgetName, BUDGETS),
    ]  # fmt: skip
    for names, meant in pairs:
        assert set(get_args(names)) == set(meant)
    assert {algorithm.kind for algorithm in ALGORITHMS.values()} == set(KINDS)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dims": 3}, "unknown setting dims: Config knows .*dim"),
        ({"model": {"wdth": 3}}, "unknown setting wdth: ModelConfig knows .*width"),
        ({"model": {"dim": 3}}, "other than shape, dim, kind and context"),
        ({"model": 3}, "model must hold settings"),
        ({"model": {"width": 0}}, "width must be a whole number from 1, not 0"),
        ({"model": {"levels": [[1, 1]]}}, "levels must be a whole number from 0"),
        ({"model": {"dropout": 1.5}}, r"dropout must lie in \[0, 1\]"),
        ({"model": {"near": -1}}, "near must be a whole number from 0"),
        ({"model": {"bends": -1}}, "bends must be a whole number from 0"),
        ({"dim": 0}, "dim must be a whole number from 1, not 0"),
        ({"dim": "32"}, "dim must be a whole number from 1, not '32'"),
        ({"dim": True}, "dim must be a whole number from 1, not True"),
        ({"steps": 2.5}, "steps must be a whole number from 0, not 2.5"),
        ({"steps": -1}, "steps must be a whole number from 0, not -1"),
        ({"every": 0}, "every must be"),
        ({"time": 0}, "time must be a positive number"),
        ({"time": "20m"}, "time must be a positive number"),
        ({"time": 60, "steps": 5}, "time and steps both say how long to train"),
        ({"density_steps": 5}, "density_steps goes with steps"),
        ({"ema": 1.5}, r"ema must lie in \[0, 1\]"),
        ({"patience": -1}, "patience must be a whole number from 0"),
        ({"shift": -1}, "shift must be a number from 0"),
        ({"size": 0}, "size must be a whole number from 1"),
        ({"channels": 2}, r"channels must be 1 \(grey\), 3 \(colour\) or null, not 2"),
        ({"lr": 0}, "lr must be a positive number, not 0"),
        ({"lr": float("nan")}, "lr must be a positive number, not nan"),
        ({"lr": float("inf")}, "lr must be a positive number, not inf"),
        ({"clip": None}, "clip must be a positive number, not None"),
        ({"weight_decay": -0.1}, "weight_decay must be a number from 0"),
        ({"precision": "fp8"}, "precision must be one of no, bf16, not 'fp8'"),
        ({"algorithm": "gan"}, "algorithm must be one of m-flow, .*, not 'gan'"),
        ({"noise": [0.1, 0.2, 0.3]}, "noise must be a number or a range 0 ≤ low < high"),
        ({"noise": []}, "noise must be a number or a range"),
        ({"noise": [0.5, 0.1]}, "noise must be a number or a range"),
        ({"noise": [0, 0.5], "algorithm": "af"}, "a range of noise is for m-flow and me-flow, not for af"),
        ({"flip": 1}, "flip must be true or false, not 1"),
        ({"seed": 2**63}, "seed must lie below"),
    ],
)
def test_nonsense_is_refused_when_a_configuration_is_made(values, message):
    with pytest.raises(UsageError, match=message):
        from_json(Config, values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "missing 1 required positional argument: 'shape'"),
        ({"shape": [1, 8]}, "shape must be"),
        ({"shape": [1, 8, 0]}, "shape must be"),
        ({"shape": "188"}, "shape must be"),
        ({"shape": [1, 8, 8], "dim": 64}, r"dim must lie in 1 … 63 for images of shape \(1, 8, 8\), not 64"),
        ({"shape": [8], "dim": 2, "levels": 1}, "levels are of images"),
    ],
)
def test_architectures_that_cannot_be_built_are_refused(values, message):
    with pytest.raises(UsageError, match=message):
        from_json(ModelConfig, values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_bad": 1.5}, r"max_bad must lie in \[0, 1\]"),
        ({"max_bad": -1}, "max_bad"),
        ({"max_pixels": 0}, "from 1"),
    ],
)
def test_files_cannot_be_read_in_any_way(values, message):
    with pytest.raises(UsageError, match=message):
        Reading(**values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a readable JSON configuration"),
        ("[1, 2]", "one JSON object is expected, not list"),
        ('{"dim": -1}', "dim must be"),
        ("[" * 100_000, "not a readable JSON configuration"),
        ("\xff", "not a readable JSON configuration"),
    ],
)
def test_a_bad_file_is_named(tmp_path, text, message):
    path = tmp_path / "wrong.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UsageError, match=message) as caught:
        read_settings(Config, path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"none\.json: not a readable"):
        read_settings(Config, tmp_path / "none.json")
