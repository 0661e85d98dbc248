"""Every page of the package, as its verb writes it: escaped, self-contained, readable on a phone."""

import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from browser import chromium, needs_chromium, on_a_phone, screenshot
from pages import check_page, pictures_of, sections_of, text_of
from tiny import TINY, draw_bumps

from mfimage import Detector, evaluate, from_pretrained, load
from mfimage.clothes_demo import run_demo
from mfimage.datasets import ImageSet, Skipped, gaussian_noise
from mfimage.denoising.comparison import page_of as page_of_denoised
from mfimage.denoising.comparison import slides_of
from mfimage.denoising.restorer import Restorer
from mfimage.denoising.told import rows_of
from mfimage.eval import compare
from mfimage.eval.comparison import picture_rows
from mfimage.eval.evaluation import page_of
from mfimage.eval.figures import PANEL, plot
from mfimage.eval.page import strip
from mfimage.experiments.manifold_plots import plot_plane
from mfimage.experiments.tables import ExperimentReport, Metric, Runs
from mfimage.ood import drift_of
from mfimage.ood.page import score_page

BAD = '<b>&"x"'
METRICS = ("reconstruction", "density", "memorisation", "fd")
SECTIONS = {
    "report": [
        "reconstructions", "denoising", "samples", "training", "what-to-type-next", "settings"
    ],
    "evaluation": ["numbers", "samples", "reconstructions", "nearest-training-images", "settings"],
    "comparison": ["numbers", "pictures", "notes"],
    "denoised": ["images", "settings", "notes"],
    "scores": [
        "scores", "against-images-known-to-be-strange", "strangest-images", "least-strange-images",
        "the-set-as-a-whole", "files-that-could-not-be-read", "settings",
    ],
    "demo": [
        "numbers", "samples", "reconstructions", "from-best-to-worst", "denoising", "strange-images",
        "training", "settings", "notes",
    ],
    "experiment": ["numbers", "pictures", "settings", "notes"],
}  # fmt: skip


def score_report(model):
    detector = Detector(model).calibrate(torch.from_numpy(draw_bumps(600, seed=11))[:, None] / 255, 0.02)
    images = torch.from_numpy(draw_bumps(40, seed=5))[:, None]
    images[7] = 0
    paths = tuple(f"{BAD}/{i}.png" for i in range(40))
    files = ImageSet(images, BAD, "all", paths, (Skipped(f"{BAD}.png", "not an image"),))
    found = detector.score(files)
    noise = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    strange = {"noise": detector.score(noise).scores}
    return score_page(files, found, detector.calibration, drift_of(found, detector.calibration), strange)


def denoised_page(model):
    clean = torch.from_numpy(draw_bumps(30, seed=5))[:, None] / 255
    y = gaussian_noise(clean, 0.2, torch.Generator().manual_seed(0))
    restored = Restorer(model, "projection", 0.2)(y)
    rows = rows_of(restored, [f"{BAD}/{i}.png" for i in range(30)], [255.0] * 30, range(30), clean)
    rows[1]["warning"] = f"{BAD}: far from what the model was trained on"
    slides = slides_of(restored, [], clean)
    slides[2] = replace(slides[2], unsure=torch.full((1, 8, 8), 0.1))
    return page_of_denoised(slides, rows, "30 images in out.", False, {"model": BAD}, [BAD])


@pytest.fixture(scope="module")
def paths(tiny_run, bumps, tmp_path_factory):
    """The path of each page by its name."""
    folder, model = tmp_path_factory.mktemp("pages"), from_pretrained(tiny_run)
    test, train = load(bumps, "test"), load(bumps, "train")
    found = evaluate(test, model, train, metrics=METRICS, cache=folder)
    worse = {name: replace(n, value=9 * n.value, interval=None) for name, n in found.numbers.items()}
    rows = picture_rows({BAD: model, "b": model}, test, 0)
    cloud = torch.randn(80, 2, generator=torch.Generator().manual_seed(0))
    experiment = ExperimentReport(
        BAD, BAD, {BAD: BAD}, [Metric("distance", BAD, "lower")],
        {BAD: {"distance": Runs((0.5, 0.6), 0.4)}, "OT": {"distance": Runs((float("nan"),) * 2)}}, {"OT": 2},
        [plot(BAD, plot_plane(cloud, cloud, cloud), BAD, PANEL), strip({BAD: torch.rand(12, 3, 8, 8)}, BAD)],
        [BAD],
    )  # fmt: skip
    shutil.copytree(tiny_run, folder / "demo")  # a finished run is not trained again
    demo, _ = run_demo(folder / "demo", TINY, str(bumps), "cpu", quiet=True)
    return {
        "report": tiny_run / "report.html",
        "evaluation": page_of(found, BAD).write(folder / "evaluation.html"),
        "comparison": compare({BAD: found, "b": replace(found, numbers=worse)}, rows).save(folder),
        "denoised": denoised_page(model).write(folder / "denoised.html"),
        "scores": score_report(model).write(folder / "scores.html"),
        "demo": demo,
        "experiment": experiment.page().write(folder / "experiment.html"),
    }


@pytest.fixture(scope="module")
def pages(paths):
    return {name: path.read_text(encoding="utf-8") for name, path in paths.items()}


@pytest.mark.parametrize("name", SECTIONS)
def test_every_page_is_whole_escaped_and_asks_for_nothing(pages, name):
    check_page(pages[name])
    assert sections_of(pages[name]) == SECTIONS[name]
    assert name in ("demo", "report") or "&lt;b&gt;&amp;&#34;x&#34;" in pages[name]
    assert len(re.search(r'<p class="lead">(.*?)</p>', pages[name])[1]) > 10


def test_an_evaluation_shows_its_numbers_beside_those_of_principal_components(pages):
    page = pages["evaluation"]
    assert re.search(
        r"psnr ↑, dB <strong>[\d.]+</strong> [\d.]+ … [\d.]+ [\d.]+ 26 q05", text_of(page, "numbers")
    )
    assert "The first 64 samples of seed 0, unselected." in text_of(page, "samples")
    assert len(pictures_of(page)) == 5
    assert "protocol mfimage: 8-bit PNG" in text_of(page, "settings")
    lead = re.search(r'<p class="lead">(.*?)</p>', page)[1]
    assert re.match(r"Reconstructs unseen images with \d\d % less squared error than 2 principal", lead)
    sets = r"reconstructions of training images [\d.]+, as many training images [\d.]+"
    assert re.search(rf"Samples have a distance of [\d.]+ \(fd-scattering\), {sets}\.", lead)


def test_the_report_of_a_run_shows_what_its_model_does(pages):
    page = pages["report"]
    lead = re.search(r'<p class="lead">(.*?)</p>', page)[1]
    assert re.match(r"Reconstructs unseen images with \d\d % less squared error than 2 principal", lead)
    assert lead.endswith("175 images to learn from, 19 held out, 8×8 grey.")
    assert [words for _, words in pictures_of(page)] == [
        "12 unseen images", "12 projections", "12 PCA", *["12 noisy images", "12 denoised images"] * 2,
        "48 samples",
    ]  # fmt: skip
    assert re.search(r"noisy [\d.]+ dB denoised", text_of(page, "denoising"))
    assert "mfimage evaluate" in text_of(page, "what-to-type-next")
    assert len(page) < 2_000_000


def test_a_comparison_marks_the_best(pages):
    page = pages["comparison"]
    assert re.search(r"mse ↓, a pixel 26 <strong>[\d.]+</strong> [\d.]+", text_of(page, "numbers"))
    assert f"Best by fd-scattering: {BAD.replace('<', '&lt;')[:3]}" in page
    assert [words.split(" ", 1)[1] for _, words in pictures_of(page)] == [
        "held-out images", f"{BAD}: reconstructions", "b: reconstructions", f"{BAD}: samples", "b: samples"
    ]  # fmt: skip


def test_what_denoise_did_is_shown_before_and_after(pages):
    page = pages["denoised"]
    words = text_of(page, "images")
    assert words.strip().startswith("Images The first 24 of 30. Move the slider, or focus it")
    assert re.search(
        r"σ 0\.2 \(51/255\); projection: changed by [\d.]+ \(\d+/255\); [\d.]+ dB before, [\d.]+ after\.",
        words,
    )
    assert words.count("far from what the model was trained on</strong>") == 1
    shown = pictures_of(page)
    names = [words.split(" ", 1)[1] for _, words in shown]
    known = ["image before", "image after", "residual", "clean image"]
    assert names[:12] == [*known, *known, *known[:3], "map of uncertainty"]
    assert len(shown) == 4 * 24 + 1
    before, after, residual = (picture[..., 0].astype(float) for picture, _ in shown[:3])
    most = float(re.search(r"residual: white is \+([\d.]+)", words)[1])
    np.testing.assert_allclose(residual, np.clip(127.5 * (1 + (before - after) / 255 / most), 0, 255), atol=5)


@needs_chromium
def test_a_slider_is_moved_by_keys_and_shows_what_was_before(tmp_path, paths):
    text = paths["denoised"].read_text(encoding="utf-8")
    moved = "s.value = 80; s.dispatchEvent(new Event('input', {bubbles: true}))"
    move = f"<script>const s = document.querySelector('input'); {moved}</script>"
    free = re.sub(r"; script-src 'sha256-[^']+'", "; script-src 'unsafe-inline'", text)
    (tmp_path / "moved.html").write_text(free.replace("</body>", f"{move}</body>"), encoding="utf-8")
    dom, log = chromium(tmp_path, "--dump-dom", (tmp_path / "moved.html").as_uri())
    assert 'class="slider" style="--at: 80%;"' in dom
    dom, log = chromium(tmp_path, "--dump-dom", paths["denoised"].as_uri())
    assert '<html lang="en" class="live">' in dom  # the page's own script may run
    assert "CONSOLE" not in log, log


def test_scores_show_the_strangest_first(pages):
    page = pages["scores"]
    shown = text_of(page, "strangest-images")
    assert shown[: shown.index(" <strong>")].endswith("/7.png")  # the black one comes first
    assert re.search(r"noise 0\.9750 0\.9\d+–1\.0000", text_of(page, "against-images-known-to-be-strange"))
    assert f"{BAD}.png not an image" in text_of(page, "files-that-could-not-be-read")
    assert "threshold" in text_of(page, "scores")
    assert len(pictures_of(page)) == 24


def test_scores_leave_out_what_was_not_asked_for(model):
    detector = Detector(model).calibrate(torch.from_numpy(draw_bumps(600, seed=11))[:, None] / 255, 0.02)
    images = ImageSet(torch.from_numpy(draw_bumps(40, seed=5))[:, None], "a", "all", ("a.png",) * 40)
    page = score_page(images, detector.score(images), detector.calibration).html()
    assert sections_of(page) == ["scores", "strangest-images", "least-strange-images", "settings"]


def test_the_demonstration_tells_one_psnr_in_its_lead_and_in_its_table(pages):
    page = pages["demo"]
    decibels, pca = re.search(
        r"That is ([\d.]+) dB against ([\d.]+)\. Its reconstruction error", page
    ).groups()
    told = re.search(
        r"psnr ↑, dB (?:<strong>)?([\d.]+)\S* [\d.]+ … [\d.]+ (?:<strong>)?([\d.]+)", text_of(page, "numbers")
    )
    assert (decibels, pca) == told.groups()
    assert re.search(
        r"σ = 0.5 clean noisy \S+ dB denoised \S+ dB projection \S+ dB PCA", text_of(page, "denoising")
    )
    assert "clothes (test) digits" in text_of(page, "strange-images")
    assert "Reconstruction" in text_of(page, "training")
    assert len(pictures_of(page)) == 1 + 2 + 6 + 20


@needs_chromium
@pytest.mark.parametrize("name", SECTIONS)
def test_pages_open_without_an_error_and_fit_a_phone(tmp_path, paths, name):
    measure = (
        "[d.documentElement.scrollWidth, [...d.images].every(i => i.complete && i.naturalWidth), "
        "[...d.querySelectorAll('table')].every(t => t.getBoundingClientRect().left >= 0)]"
    )
    assert on_a_phone(tmp_path, paths[name], measure) == "360,true,true"


@needs_chromium
def test_pages_and_their_charts_are_light_or_dark_as_the_reader_likes(tmp_path, paths):
    light = screenshot(tmp_path, paths["scores"], 800)
    dark = screenshot(tmp_path, paths["scores"], 800, "--blink-settings=preferredColorScheme=0")
    assert light[0, 0].min() > 250
    assert dark[0, 0].max() < 40
    plots = [shot[260:700] for shot in (light, dark)]
    inked = [(np.abs(shot - shot[0, 0]).sum(-1) > 100).mean() for shot in plots]
    assert inked[0] > 0.02
    assert inked[1] == pytest.approx(inked[0], rel=0.5)
    dom, log = chromium(tmp_path, "--dump-dom", paths["demo"].as_uri())
    assert "</svg>" in dom
    assert "CONSOLE" not in log, log
