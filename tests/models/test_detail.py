"""Samples: their temperature, and detail that a manifold leaves out, drawn by what removes noise."""

import pytest
import torch
from commands import fails
from tiny import draw_bumps, image_set, initialised

from mfimage import evaluate, save_pretrained
from mfimage.config import ModelConfig
from mfimage.errors import ModelError, UsageError
from mfimage.models.detail import draw_detail


def aware(dim=3):
    """A model of bumps whose network still does nothing: noise is removed by the linear estimate."""
    config = ModelConfig((1, 8, 8), dim, noise_aware=True, noise_width=2)
    flow = initialised(config, image_set(draw_bumps(300)))
    flow.chart.initialise_denoiser(image_set(draw_bumps(300)).batch(slice(None)))
    return flow


def test_what_is_coarser_than_the_noise_stays_and_what_is_finer_is_drawn(generator):
    """Of Gaussian data, whose best denoiser is Wiener's: one coordinate of deviation 4, one of .1."""
    scale = torch.tensor([4.0, 0.1])

    def clear(y, sigma):
        return y * scale.square() / (scale.square() + sigma**2)

    x = torch.stack([4 * torch.randn(20_000, generator=generator), torch.zeros(20_000)], 1)
    found = draw_detail(clear, x, 0.5, torch.arange(len(x)))
    assert (found[:, 0] - x[:, 0]).std() < 0.8
    assert abs(float(found[:, 0].std()) - 4) < 0.1
    assert abs(float(found[:, 1].std()) - 0.1) < 0.015
    assert abs(float(found[:, 1].mean())) < 0.005


def test_the_noise_of_an_image_follows_from_its_seed_alone():
    x, seeds = torch.rand(1, 1, 4, 4).repeat(5, 1, 1, 1), torch.tensor([7, 8, 7, 9, 10])
    found = draw_detail(lambda y, sigma: 0.5 * y, x, 0.3, seeds)
    torch.testing.assert_close(found[3:], draw_detail(lambda y, sigma: 0.5 * y, x[3:], 0.3, seeds[3:]))
    torch.testing.assert_close(found[0], found[2])
    assert (found[0] - found[1]).abs().max() > 1e-4


def test_samples_with_detail_are_the_model_s_own_and_more():
    flow = aware()
    plain, detailed = (
        flow.sample(40, torch.Generator().manual_seed(1), detail=detail) for detail in (0.0, 0.05)
    )
    with torch.no_grad():
        off = [(x - flow.project(x)).square().flatten(1).sum(1).mean() for x in (plain, detailed)]
    assert off[0] < 1e-8
    assert off[1] > 100 * off[0]
    assert (plain - detailed).square().mean() < 0.1 * plain.var()
    again = flow.sample(40, torch.Generator().manual_seed(1), batch_size=3, detail=0.05)
    assert torch.equal(again, detailed)


def test_a_low_temperature_shrinks_the_base_noise(model):
    warm, cold = (
        model.density.transform(
            model.encode(model.sample(50, torch.Generator().manual_seed(0), temperature=t))
        )[0]
        for t in (1.0, 0.5)
    )
    torch.testing.assert_close(cold, 0.5 * warm, atol=0.02, rtol=0)


@pytest.mark.parametrize("temperature", [0, -1.0, float("inf"), "cold"])
def test_temperature_is_a_factor(temperature, model):
    with pytest.raises(UsageError, match="temperature is a factor above 0"):
        model.sample(2, temperature=temperature)


@pytest.mark.parametrize("detail", [-0.1, float("nan"), "much"])
def test_detail_is_a_deviation(detail):
    with pytest.raises(UsageError, match="detail is a deviation σ ≥ 0"):
        aware().sample(2, detail=detail)


def test_a_model_without_noise_draws_no_detail(model):
    with pytest.raises(ModelError, match="was not trained with noise"):
        model.sample(2, detail=0.5)


def test_sample_draws_detail_where_it_is_asked_to_and_says_so(mfimage, tiny_run, tmp_path):
    save_pretrained(aware(), tmp_path / "aware")
    command = [
        "sample",
        "-m",
        tmp_path / "aware",
        "-n",
        4,
        "-o",
        "out",
        "--detail",
        0.5,
        "--temperature",
        0.9,
    ]
    code, out, err = mfimage(*command)
    assert (code, len(out.splitlines())) == (0, 4)
    assert "4 samples and sheet.png in out, at temperature 0.9, with detail from σ = 0.5: near the" in err
    assert "with detail" not in mfimage("sample", "-m", tmp_path / "aware", "-o", "on")[2]
    assert fails(mfimage("sample", "-m", tiny_run, "-o", "no", "--detail", 0.2), 4, "not trained with noise")


def test_samples_with_detail_are_measured_beside_those_on_the_manifold(tmp_path):
    test, train = image_set(draw_bumps(60, seed=1)), image_set(draw_bumps(200))
    found = evaluate(test, aware(), train, metrics=("fd",), samples=60, cache=tmp_path)
    ends = ("", "_detail", "_reconstructions", "_floor")
    assert list(found.numbers) == [f"fd-scattering{end}" for end in ends]
    assert len({n.value for n in found.numbers.values()}) == 4
    assert found.pictures["samples with detail"].shape == found.pictures["samples"].shape
    assert "with detail" in found.verdict
