import base64
import html
import io
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from browser import chromium, needs_chromium, on_a_phone, screenshot
from PIL import Image

from mfimage.errors import DataError
from mfimage.eval.demo_page import Curve, Report, Row, Strip, write_report

NAN, INF = math.nan, math.inf
SECTIONS = ["numbers", "samples", "reconstructions", "denoising", "ood", "curves", "settings", "notes"]


@pytest.fixture
def full(generator):
    def images(n, channels=1):
        return torch.rand(n, channels, 8, 8, generator=generator)

    steps = list(range(1, 401))
    return Report(
        title="A <script>alert(1)</script> title",
        sentence="It works & <b>well</b>.",
        settings={"dim <i>": 32, "lr": 0.003, "shape": (1, 8, 8)},
        numbers=[
            Row("PSNR", "dB", 20.6123, 18.27, "higher", 'a "note"'),
            Row("error", "an image", 9.8, 12.34, "lower"),
            Row("log-density", "nats", -1234.5, None, None),
        ],
        curves=[
            Curve("Phase 1", "error", steps, [9 / s for s in steps], [(100.0, 1.0), (200.0, 0.5)], True),
            Curve("Phase 2", "nats", steps[:9], [-float(s) for s in steps[:9]]),
        ],
        samples=images(10),
        samples_caption="The first 10 samples of seed 7, unselected.",
        reconstructions={"best": (images(5, 3), images(5, 3)), "worst": (images(5), images(5))},
        denoising=[
            Strip(0.2, {k: images(4) for k in ("clean", "noisy", "M-flow")}, {"noisy": 14.0, "M-flow": 19.5})
        ],
        ood_scores={"clothes": 0.01 + images(9).mean((1, 2, 3)) / 9, "digits": 1 + images(9).mean((1, 2, 3))},
        ood_auroc={"digits": (0.99, 0.9)},
        notes=["FID was not computed: see https://example.org <here>"],
    )


def written(tmp_path, report):
    return write_report(tmp_path / "report.html", report).read_text(encoding="utf-8")


def pictures(page):
    found = re.findall(r'<img src="data:image/png;base64,([^"]+)" width="(\d+)" height="(\d+)"', page)
    return [(Image.open(io.BytesIO(base64.b64decode(data))), (int(w), int(h))) for data, w, h in found]


def paths(page):
    return re.findall(r'<g class="(\w+) s\d"><path d="([^"]+)"', page)


def text_of(page, section):
    body = re.search(rf'<section id="{section}">(.*?)</section>', page, re.S)[1]
    return html.unescape(re.sub(r"\s+", " ", re.sub("<(?!/?strong)[^>]*>", " ", body)))


def test_every_section_stands_on_the_page_in_order(tmp_path, full):
    page = written(tmp_path, full)
    assert re.findall(r'<section id="(\w+)">', page) == SECTIONS
    assert page.startswith("<!DOCTYPE html>")
    assert 'name="viewport"' in page
    assert "prefers-color-scheme: dark" in page
    assert page.count("<figure>") == 3
    assert page.index("It works") < page.index("<section")
    assert "seed 7" in text_of(page, "samples")
    assert list(tmp_path.iterdir()) == [tmp_path / "report.html"]


def test_empty_parts_are_left_out(tmp_path, full):
    empty = {
        "numbers": (),
        "samples": full.samples[:0],
        "reconstructions": {},
        "denoising": (),
        "ood_scores": {},
        "ood_auroc": {},
        "curves": (),
        "settings": {},
        "notes": (),
    }
    assert "<section" not in written(tmp_path, replace(full, **empty))
    assert "<section" not in written(tmp_path, Report("only a title", "and a sentence"))
    for name in set(empty) & set(SECTIONS):
        page = written(tmp_path, replace(full, **{name: empty[name]}))
        assert re.findall(r'<section id="(\w+)">', page) == [s for s in SECTIONS if s != name]


def test_text_is_escaped_and_nothing_is_fetched(tmp_path, full):
    page = written(tmp_path, full)
    assert "<script" not in page
    assert "A &lt;script&gt;alert(1)&lt;/script&gt; title" in page
    assert "<b>" not in page
    assert "<i>" not in page
    assert "<here>" not in page
    assert not re.search(r"""(src|href)\s*=\s*["']?\s*(https?:)?//|url\(|@import""", page)
    assert set(re.findall(r'(?:src|href)="([^":]*:)', page)) == {"data:"}


class Balance(HTMLParser):
    """Holds that every element is closed by its own end tag."""

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_elements_are_balanced(tmp_path, full):
    parser = Balance()
    parser.feed(written(tmp_path, full))
    parser.close()
    assert parser.open == []


def test_numbers_are_aligned_and_the_better_is_bold(tmp_path, full):
    text = text_of(written(tmp_path, full), "numbers")
    assert 'PSNR ↑ dB a "note" <strong>20.61</strong> 18.27' in text
    assert "error ↓ an image <strong>9.80</strong> 12.34" in text
    assert re.search(r"log-density nats\s+−1,23[45]\s+–", text)
    assert "digits <strong>0.9900</strong> 0.9000" in text_of(written(tmp_path, full), "ood")
    assert "noisy 14.00 dB M-flow <strong>19.50</strong> dB" in text_of(written(tmp_path, full), "denoising")
    assert "lr 0.003" in text_of(written(tmp_path, full), "settings")


@pytest.mark.parametrize(
    ("model", "pca", "better", "shown"),
    [
        (NAN, 2.5, "higher", "– 2.500"),
        (None, None, "lower", "– –"),
        (1.0, None, "lower", "1.000 –"),
        ("none", 1.5, "higher", "none 1.500"),
        (INF, 30.0, "higher", "<strong>∞</strong> 30.00"),
        (2.00001, 2.00002, "lower", "2.000 2.000"),
        (3.0, 2.0, None, "3.000 2.000"),
        (3.0, 2.0, "lower", "3.000 <strong>2.000</strong>"),
        (0.001, 12.34, "lower", "<strong>0.001000</strong> 12.34"),
        (1.5e-7, 2e-7, "lower", "<strong>1.500 × 10⁻⁷</strong> 2.000 × 10⁻⁷"),
        (12345, 0.0, "lower", "12,345 <strong>0</strong>"),
        (-3.0, -2.0, "higher", "−3.000 <strong>−2.000</strong>"),
    ],
)
def test_format(tmp_path, model, pca, better, shown):
    page = written(tmp_path, Report("t", "s", numbers=[Row("name", "unit", model, pca, better)]))
    row = re.search(r"unit (.*?) ↑ higher", text_of(page, "numbers"))[1]
    assert re.sub(r"\s+", " ", row).strip() == shown
    assert "nan" not in row.lower()


def test_pictures_decode_to_the_images(tmp_path, full):
    found = pictures(written(tmp_path, full))
    assert len(found) == 1 + 4 + 3
    for picture, size in found:
        assert picture.size == size
        assert picture.mode in ("LA", "RGBA")
    samples = np.asarray(found[0][0])
    assert samples.shape == (18, 78, 2)  # 8 beside each other, two rows, two pixels between
    expected = full.samples.mul(255).round().byte()[:, 0].numpy()
    for i, image in enumerate(expected):
        top, left = i // 8 * 10, i % 8 * 10
        np.testing.assert_array_equal(samples[top : top + 8, left : left + 8, 0], image)
    opaque = samples[..., 1] == 255
    assert opaque.sum() == 10 * 64
    assert (samples[~opaque][:, 1] == 0).all()
    best = np.asarray(found[1][0])
    first = full.reconstructions["best"][0][0].mul(255).round().byte().movedim(0, -1).numpy()
    np.testing.assert_array_equal(best[:8, :8, :3], first)


@pytest.mark.parametrize(
    "images", [torch.rand(2, 2, 8, 8), torch.rand(2, 8, 8), torch.full((1, 1, 8, 8), NAN)]
)
def test_bad_pictures_are_an_error(tmp_path, images):
    with pytest.raises(DataError, match="samples of a report"):
        write_report(tmp_path / "report.html", Report("t", "s", samples=images))
    assert list(tmp_path.iterdir()) == []


def test_curves_are_drawn_to_scale(tmp_path):
    steps, losses = [0.0, 50.0, 100.0], [1.0, 10.0, 100.0]
    curve = Curve("loss", "nats", steps, losses, log=True)
    page = written(tmp_path, Report("t", "s", curves=[curve]))
    (kind, path), *_ = paths(page)
    (x0, y0), (x1, y1), (x2, y2) = [tuple(map(float, p.split())) for p in path[1:].split("L")]
    assert kind == "line"
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.2)  # decades are equal
    assert y2 < y0
    assert "nats, log scale" in page
    assert "nats, log scale" not in written(tmp_path, Report("t", "s", curves=[replace(curve, log=False)]))


def test_a_tick_stands_where_its_value_is(tmp_path):
    page = written(tmp_path, Report("t", "s", curves=[Curve("c", "nats", [0.0, 4.0], [-2.0, 2.0])]))
    ticks = dict(re.findall(r'<text x="([\d.]+)" y="[\d.]+" text-anchor="middle">([^<]+)<', page))
    positions = {float(value): float(x) for x, value in ticks.items()}
    assert positions[0] == 46
    assert positions[4] == 420
    assert positions[2] == pytest.approx(233)
    assert ">−2<" in page


def test_long_curves_are_averaged_and_gaps_left_out(tmp_path):
    steps = list(range(3000))
    page = written(tmp_path, Report("t", "s", curves=[Curve("c", "nats", steps, [2.0, NAN, 4.0] * 1000)]))
    assert "training (a point is the mean of 14)" in page
    assert 100 < paths(page)[0][1].count("L") < 150
    assert not re.search(r"nan|inf", "".join(path for _, path in paths(page)))
    only_nan = Report("t", "s", curves=[Curve("c", "nats", [1.0], [NAN])])
    assert "<section" not in written(tmp_path, only_nan)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(
    "values", [[3.0], [3.0, 3.0], [0.0, 0.0], [-1.0, 5.0], [1e-9, 1e9], [0.5, 0.6], [-1e30, 1e30]]
)
def test_odd_ranges_are_drawn(tmp_path, values, log):
    curve = Curve("c", "nats", list(map(float, range(len(values)))), values, log=log)
    page = written(tmp_path, Report("t", "s", curves=[curve]))
    labels = re.findall(r'text-anchor="(?:end|middle)">([^<]+)<', page)
    assert 3 <= len(labels) <= 22
    coordinates = [float(v) for v in re.findall(r"[\d.e+-]+", paths(page)[0][1])]
    assert all(0 <= v <= 440 for v in coordinates)


def test_histogram_fills_the_familiar_set_and_chooses_its_scale(tmp_path):
    familiar, strange = torch.linspace(0.01, 0.02, 50), torch.linspace(0.2, 0.9, 50)
    wide = written(tmp_path, Report("t", "s", ood_scores={"clothes": familiar, "digits": strange}))
    assert [kind for kind, _ in paths(wide)] == ["area", "line"] * 2  # the chart, its legend
    assert "reconstruction error a pixel, log scale" in wide
    narrow = written(tmp_path, Report("t", "s", ood_scores={"a": familiar, "b": familiar * 2}))
    assert "log scale" not in narrow
    starts = [float(re.match(r"M([\d.]+)", path)[1]) for _, path in paths(wide)[:2]]
    ends = [float(re.findall(r"H([\d.]+)", path)[-1]) for _, path in paths(wide)[:2]]
    assert starts[0] == 46
    assert ends[0] < starts[1]  # separate sets do not touch
    assert ends[1] == 420


def test_scores_that_are_not_finite_are_counted_not_hidden(tmp_path):
    scores = {"clothes": torch.tensor([0.0, 1.0, INF]), "digits": torch.tensor([NAN])}
    page = written(tmp_path, Report("t", "s", ood_scores=scores))
    assert "clothes (1 of 3 not finite, left out)" in page
    assert "<section" not in written(tmp_path, Report("t", "s", ood_scores={"a": torch.tensor([NAN])}))


def test_a_page_that_cannot_be_written(tmp_path, full):
    (tmp_path / "report.html").mkdir()
    with pytest.raises(IsADirectoryError, match=r"report\.html"):
        write_report(tmp_path / "report.html", full)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


@needs_chromium
class TestInABrowser:
    def test_it_opens_without_an_error(self, tmp_path, full):
        page = write_report(tmp_path / "report.html", full)
        dom, log = chromium(tmp_path, "--dump-dom", page.as_uri())
        assert re.findall(r'<section id="(\w+)">', dom) == SECTIONS
        assert "CONSOLE" not in log, log

    @pytest.mark.parametrize("width", [400, 1200])
    def test_it_draws_something(self, tmp_path, full, width):
        page = write_report(tmp_path / "report.html", full)
        picture = screenshot(tmp_path, page, width)
        assert picture.shape[1] == width
        inked = (np.abs(picture - picture[0, 0]).sum(-1) > 30).any(1)
        assert inked.mean() > 0.4
        coloured = np.ptp(picture, axis=-1) > 60
        assert coloured.sum() > 200  # colour pictures or curves

    def test_nothing_is_wider_than_a_phone(self, tmp_path, full):
        page = write_report(tmp_path / "report.html", full)
        assert on_a_phone(tmp_path, page, "d.documentElement.scrollWidth") == "360"
