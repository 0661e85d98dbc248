"""Pages: what stands where, what is left out, and pictures that are the images."""

import math

import numpy as np
import pytest
import torch
from pages import check_page, pictures_of, sections_of, text_of

from mfimage.errors import DataError, UsageError
from mfimage.eval.page import Files, Page, Pictures, Section, picture, strip
from mfimage.eval.plots import lines_plot
from mfimage.eval.table import Cell, Column, Row, Table

BAD = '<b>&"x"'


@pytest.fixture
def images(generator):
    return torch.rand(10, 1, 8, 8, generator=generator)


@pytest.fixture
def page(images):
    rows = [
        Row(BAD, [Cell("1.00", True, (BAD,)), Cell("0.5")], BAD, BAD),
        Row("pca", [Cell("12.0"), Cell("")]),
    ]
    table = Table([Column(BAD), Column(BAD, BAD), Column("", BAD, True)], rows, BAD, BAD)
    plot = lines_plot(BAD, BAD, BAD, {BAD: ([0.0, 1.0], [0.0, 1.0])})
    grid = [picture(images[:2], "pair", 2, BAD, Cell(BAD, True), BAD)]
    sections = [
        Section(
            "All parts", BAD, [table, None, plot, strip({BAD: images}, BAD, BAD), Files([(BAD, BAD)], BAD)]
        ),
        Section("A grid", "", [Pictures(grid, BAD, BAD, grid=True)]),
        Section("Nothing", "at all", [None, Pictures([]), Table([Column("")], []), Files([])]),
    ]
    return Page(BAD, BAD, sections, {BAD: BAD, "lr": 0.003, "shape": (1, 8, 8)}, [BAD])


def test_all_text_is_escaped_and_what_is_empty_is_left_out(page):
    html = page.html()
    check_page(html)
    assert sections_of(html) == ["all-parts", "a-grid", "settings", "notes"]
    assert html.count("&lt;b&gt;&amp;") == 36  # every one of the names
    counts = {section: text_of(html, section).count(BAD) for section in sections_of(html)}
    assert counts == {"all-parts": 21, "a-grid": 5, "settings": 2, "notes": 1}
    assert "lr 0.003000 shape (1, 8, 8)" in text_of(html, "settings")
    assert "<section" not in Page("only a title", "and a sentence").html()


def test_a_table_marks_the_best_and_shows_small_print(page):
    text = text_of(page.html(), "all-parts")
    assert f"{BAD} {BAD} <strong>1.00</strong> {BAD} 0.5 {BAD} pca 12.0" in text


def test_pictures_decode_to_the_images(images, generator):
    coloured = torch.rand(3, 3, 8, 8, generator=generator)
    shown = [picture(images, "samples", 8), picture(coloured, "images")]
    found = pictures_of(Page("t", "l", [Section("s", "", [Pictures(shown)])]).html())
    assert [words for _, words in found] == ["10 samples", "3 images"]
    samples, row = (array for array, _ in found)
    assert samples.shape == (18, 78, 2)  # 8 beside each other, two rows, two pixels between
    for i, image in enumerate(images.mul(255).round().byte()[:, 0].numpy()):
        top, left = i // 8 * 10, i % 8 * 10
        np.testing.assert_array_equal(samples[top : top + 8, left : left + 8, 0], image)
    opaque = samples[..., 1] == 255
    assert opaque.sum() == 10 * 64
    assert (samples[~opaque][:, 1] == 0).all()
    np.testing.assert_array_equal(row[:8, :8, :3], coloured[0].mul(255).round().byte().movedim(0, -1).numpy())


@pytest.mark.parametrize(("side", "shown"), [(100, 700), (300, 600), (400, 720), (1500, 720)])
def test_pictures_are_enlarged_by_whole_multiples(side, shown):
    assert picture(torch.zeros(1, 1, 2, side), "images").shown == shown


@pytest.mark.parametrize(
    "images", [torch.rand(2, 2, 8, 8), torch.rand(2, 8, 8), torch.full((1, 1, 8, 8), math.nan)]
)
def test_bad_pictures_are_an_error(images):
    with pytest.raises(DataError, match="samples of a report"):
        picture(images, "samples")


def test_a_page_that_cannot_be_written(tmp_path, page):
    (tmp_path / "report.html").mkdir()
    with pytest.raises(UsageError, match=r"report\.html: is a folder; a file is to be written here"):
        page.write(tmp_path / "report.html")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
