"""The pages of an evaluation and of a comparison, in a browser."""

import re

import pytest
from browser import chromium, needs_chromium, on_a_phone, screenshot
from test_comparison import report

from mfimage import evaluate, load
from mfimage.eval import compare
from mfimage.eval.comparison import picture_rows
from mfimage.eval.result_pages import write_evaluation

METRICS = ("reconstruction", "density", "memorisation", "fd")


@pytest.fixture(scope="module")
def page(tiny_run, bumps, tmp_path_factory):
    from mfimage import from_pretrained

    folder = tmp_path_factory.mktemp("page")
    found = evaluate(
        load(bumps, "test"), from_pretrained(tiny_run), load(bumps, "train"), metrics=METRICS, cache=folder
    )
    return write_evaluation(folder / "evaluation.html", found, "bumps <b>&")


@pytest.fixture
def comparison(model, bumps, tmp_path):
    rows = picture_rows({"a": model, "b": model}, load(bumps, "test"), 0)
    return compare({"a": report(1.0, 4.0), "b": report(2.0, 3.0)}, rows).save(tmp_path)


def test_the_page_tells_all_and_asks_for_nothing(page):
    text = page.read_text(encoding="utf-8")
    assert re.findall(r'<section id="(\w+)">', text) == [
        "numbers", "samples", "reconstructions", "memorisation", "settings"
    ]  # fmt: skip
    assert "bumps &lt;b&gt;&amp;" in text
    assert "The first 64 samples of seed 0, unselected." in text
    assert "protocol" in text
    assert not re.search(r"https?:|<script|<link|url\(", text)
    assert text.count('src="data:image/png;base64,') == text.count("<img") == 5


@needs_chromium
def test_pages_open_without_an_error_and_their_pictures_decode(tmp_path, page, comparison):
    for each in (page, comparison):
        dom, log = chromium(tmp_path, "--dump-dom", each.as_uri())
        assert "Numbers" in dom
        assert "CONSOLE" not in log, log
        decoded = "[...d.images].filter(i => i.complete && i.naturalWidth > 0).length"
        assert on_a_phone(tmp_path, each, decoded) == "5"
        assert on_a_phone(tmp_path, each, "d.documentElement.scrollWidth") == "360"


@needs_chromium
def test_pages_are_light_or_dark_as_the_reader_likes(tmp_path, page):
    light = screenshot(tmp_path, page, 800)
    dark = screenshot(tmp_path, page, 800, "--blink-settings=preferredColorScheme=0")
    assert light[0, 0].min() > 250
    assert dark[0, 0].max() < 40
