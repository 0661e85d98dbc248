"""Whatever state of torch a caller is in, and however many threads call, results are the same."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch
from laws import perturb
from tiny import bump_images
from torch.nn import functional as F

from mfimage import (
    Detector,
    ModelConfig,
    build,
    denoise,
    from_pretrained,
    inpaint,
    save_pretrained,
    score,
    super_resolve,
)
from mfimage.errors import UsageError
from mfimage.models.build import KINDS, allocate, outline
from mfimage.models.nets import Dropout
from mfimage.modes import drawing

HOLE = torch.zeros(8, 8, dtype=torch.bool)
HOLE[2:5, 3:6] = True
SMALL = {"width": 2, "noise_width": 2, "near": 6, "hidden": 8, "density_steps": 2, "density_width": 8}


def made(kind, **settings):
    model = build(ModelConfig((1, 8, 8), 3, kind=kind, **SMALL, **settings))
    model.initialise(bump_images(60, seed=1))
    return model


@pytest.fixture(scope="module")
def flow():
    model = made("manifold-flow", noise_aware=True)
    model.chart.initialise_denoiser(bump_images(60, seed=1))
    return perturb(model, 0.1)


@pytest.fixture(scope="module")
def ambient():
    return perturb(made("pie"), 0.1)


@pytest.fixture(scope="module")
def joint(flow):
    return Detector(flow, "joint").calibrate(bump_images(60, 2), 0.1)


def first():
    return torch.Generator().manual_seed(0)


CALLS = {
    "project": lambda m, x: m.project(x),
    "log_prob": lambda m, x: m.log_prob(x),
    "lanczos": lambda m, x: m.log_density(x, method="lanczos", generator=first()).log_prob,
    "sample": lambda m, x: m.sample(3, first()),
    "interpolate": lambda m, x: m.interpolate(x[0], x[1], 5),
    "directions": lambda m, x: m.principal_directions(x, 2).images,
    "score": lambda m, x: score(x, m),
    "auto": lambda m, x: denoise(x, m),
    **{
        name: lambda m, x, name=name: denoise(x, m, 0.1, name)
        for name in ("projection", "refined", "soft", "map")
    },
    "inpaint": lambda m, x: inpaint(x, HOLE, m),
    "super_resolve": lambda m, x: super_resolve(F.avg_pool2d(x, 2), 2, m),
}


@contextmanager
def default_of_float64():
    torch.set_default_dtype(torch.float64)
    try:
        yield
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def rounding():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        yield
        assert torch.is_autocast_enabled("cpu")


MODES = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": rounding,
    "float64": default_of_float64,
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CALLS)
def test_no_mode_of_the_caller_changes_a_number(flow, name, mode):
    x = bump_images(2, seed=5)
    expected = CALLS[name](flow, x)
    with MODES[mode]():
        found = CALLS[name](flow, x.clone())
    assert found.dtype == expected.dtype
    assert torch.equal(found, expected)


@pytest.mark.parametrize("mode", MODES)
def test_no_mode_changes_a_detector_or_a_density_on_the_whole_space(ambient, joint, mode):
    x, familiar = bump_images(3, seed=5), bump_images(60, 2)
    calls = (
        lambda: denoise(x, ambient, 0.1, "tweedie"),
        lambda: ambient.log_prob(x),
        lambda: joint.score(x).scores,
        lambda: Detector(joint.model, "joint").calibrate(familiar, 0.1).calibration.scores,
    )
    for call in calls:
        expected = call()
        with MODES[mode]():
            assert torch.equal(call(), expected)


@pytest.mark.parametrize("mode", MODES)
def test_a_model_that_is_made_or_read_in_any_mode_is_the_same_and_can_be_differentiated(tmp_path, mode):
    config, x = ModelConfig((1, 8, 8), 3, **SMALL), bump_images(60, seed=1)
    expected = build(config)
    expected.initialise(x)
    save_pretrained(expected, tmp_path / "model")
    with MODES[mode]():
        models = build(config), from_pretrained(tmp_path / "model")
        models[0].initialise(x)
    for model in models:
        pairs = zip(model.state_dict().values(), expected.state_dict().values(), strict=True)
        assert all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)
        u = torch.zeros(1, 3, requires_grad=True)
        model.decode(u).sum().backward()
        assert u.grad.isfinite().all()


@pytest.mark.parametrize("name", CALLS)
def test_eight_threads_at_once_give_what_one_gives(flow, name):
    call, images = CALLS[name], bump_images(16, seed=6).view(8, 2, 1, 8, 8)
    expected = [call(flow, x) for x in images]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            for found, one in zip(pool.map(lambda x: call(flow, x), images), expected, strict=True):
                torch.testing.assert_close(found, one, atol=1e-6, rtol=0)


def test_threads_that_need_torchs_forward_mode_take_turns():
    from mfimage.models import tangents

    u = torch.randn(8, 4, 3)
    expected = [tangents(torch.tanh, part) for part in u]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            for found, one in zip(
                pool.map(lambda part: tangents(torch.tanh, part), u), expected, strict=True
            ):
                assert torch.equal(found, one)


def test_dropout_draws_what_torchs_does_but_from_its_own_thread():
    x, layer = torch.randn(64, 32, generator=torch.Generator().manual_seed(0)), Dropout(0.3)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        expected = [F.dropout(x, 0.3) for _ in range(3)]
    state = torch.get_rng_state()

    def dropped(_):
        with drawing(7, torch.device("cpu")):
            return [layer(x) for _ in range(3)]

    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(dropped, range(40)):
            assert all(map(torch.equal, found, expected))
    assert torch.equal(torch.get_rng_state(), state)
    assert layer.eval()(x) is x
    assert not Dropout(1.0)(x).any()


@pytest.mark.parametrize("kind", KINDS)
def test_building_draws_what_the_global_seed_drew_and_leaves_that_alone(kind):
    shape, dim = ((4,), 3) if kind == "sphere" else ((1, 8, 8), 3)
    config = ModelConfig(shape, dim, kind=kind, **SMALL)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        expected = KINDS[kind](config).state_dict()
    state = torch.get_rng_state()
    with ThreadPoolExecutor(4) as pool:
        built = list(pool.map(lambda _: build(config, 3).state_dict(), range(4)))
    assert torch.equal(torch.get_rng_state(), state)
    for found in built:
        assert list(found) == list(expected)
        assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("kind", KINDS)
def test_an_outline_has_the_shapes_of_the_model_and_no_content(kind):
    shape, dim = ((4,), 3) if kind == "sphere" else ((1, 9, 8), 1)
    config = ModelConfig(shape, dim, kind=kind, **SMALL)
    expected, state = build(config).state_dict(), torch.get_rng_state()
    drawn, empty = outline(config, 10**7).state_dict(), allocate(outline(config, 10**7)).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    for made_ in (drawn, empty):
        described = {name: (tensor.shape, tensor.dtype) for name, tensor in made_.items()}
        assert described == {name: (tensor.shape, tensor.dtype) for name, tensor in expected.items()}
    assert all(parameter.is_meta for parameter in outline(config, 10**7).parameters())
    assert not any(tensor.is_meta for tensor in empty.values())
    with pytest.raises(UsageError, match="more numbers"):
        outline(config, 10)
