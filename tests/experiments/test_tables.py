import base64
import html
import io
import json
import math
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from mfimage.errors import DataError
from mfimage.experiments.figures import plane, posterior
from mfimage.experiments.tables import (
    Cell,
    ExperimentReport,
    Figure,
    Metric,
    table_json,
    table_text,
    write_experiment,
)

NAN, INF = math.nan, math.inf
SECTIONS = ["numbers", "figures", "settings", "notes"]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def full():
    cloud = torch.randn(80, 2, generator=torch.Generator().manual_seed(0))
    return ExperimentReport(
        title="Circle <script>alert(1)</script>",
        sentence="Three runs & <b>each</b> of them.",
        settings={"budget <i>": "quick", "lr": 0.003},
        metrics=[
            Metric("distance", "from the circle", "lower"),
            Metric("AUC", "", "higher"),
            Metric("log p", "nats"),
        ],
        rows={
            "AF": {
                "distance": Cell((0.51, 0.58, 0.6), 0.58),
                "AUC": Cell((0.9, 0.8, 0.7), 0.99),
                "log p": Cell((-3.94, -4.5, -3.2)),
            },
            "M-flow <A>": {"distance": Cell((0.009, NAN, 0.008), 0.038), "AUC": Cell((0.95, NAN, NAN))},
            "OT": {"distance": Cell((NAN, NAN, NAN), 0.007), "AUC": Cell((NAN, NAN, NAN))},
        },
        diverged={"M-flow <A>": 1, "OT": 3},
        figures=[
            Figure('The "learned" circle', "Data <and> samples.", plane(cloud, cloud, cloud)),
            Figure("Posterior", "", posterior(cloud[:, :1], {"A": cloud[:, 1:]}, cloud[0, :1])),
        ],
        notes=["Run on <two> cores."],
    )


def plain_png(colour):
    stream = io.BytesIO()
    Image.new("RGB", (400, 200), colour).save(stream, "PNG")
    return stream.getvalue()


def written(tmp_path, report):
    return write_experiment(tmp_path / "experiment.html", report).read_text(encoding="utf-8")


def row_of(page, algorithm):
    """Cells of a row: tags stripped but for bold and small."""
    row = re.search(rf'<tr><th scope="row">{re.escape(html.escape(algorithm))}.*?</tr>', page, re.S)[0]
    cells = re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.S)
    return [html.unescape(re.sub(r"<(/?)(small|strong)[^>]*>", r"<\1\2>", cell)) for cell in cells]


# Cells


@pytest.mark.parametrize(
    ("values", "expected", "lost"),
    [
        ((), (NAN, NAN, NAN), 0),
        ((NAN, INF), (NAN, NAN, NAN), 2),
        ((2.0,), (2.0, 2.0, 2.0), 0),
        ((3.0, 1.0, 2.0, NAN), (2.0, 1.0, 3.0), 1),
        ((4.0, 1.0, 2.0, 3.0), (2.5, 1.0, 4.0), 0),
        (tuple(map(float, range(101))), (50.0, 16.0, 84.0), 0),
        ((0.0, 1.0, 2.0, 3.0, 4.0, -INF), (2.0, 0.64, 3.36), 1),
    ],
)
def test_median_and_spread(values, expected, lost):
    cell = Cell(values)
    assert (cell.median, cell.low, cell.high) == pytest.approx(expected, nan_ok=True)
    assert cell.diverged == lost


def test_json_has_medians_and_spreads_only(full):
    table = table_json(full)
    assert json.loads(json.dumps(table, allow_nan=False)) == table
    assert table["AF"]["distance"] == [0.58, 0.51, 0.6]
    assert table["OT"] == {"distance": [None, None, None], "AUC": [None, None, None]}
    assert list(table["M-flow <A>"]) == ["distance", "AUC"]
    assert table["M-flow <A>"]["AUC"] == [0.95, 0.95, 0.95]


def test_text_is_aligned(full):
    text = table_text(full)
    lines = text.splitlines()
    assert lines[0].split() == ["algorithm", "distance", "↓", "AUC", "↑", "log", "p"]
    assert [line.split(maxsplit=1)[0] for line in lines[2::2]] == ["AF", "M-flow", "OT"]
    ends = {lines[i].index(text) + len(text) for i, text in ((2, "0.580"), (3, "–0.600"), (4, "0.00850"))}
    assert len(ends) == 1  # medians end in one column, spreads under them
    assert "0.580 [0.58]" in lines[2]
    assert "−4.50 – −3.20" in lines[3]
    assert lines[5].startswith("  1 of 3 diverged")
    assert "1 of 2 runs" not in text
    assert "1 of 3 runs" in lines[5]  # one of the two that did not diverge has no AUC
    assert "diverged [0.007]" in lines[6]
    assert not any(line.endswith(" ") for line in lines)
    assert table_text(ExperimentReport("t", "s")) == "algorithm"


# The page


def test_every_section_stands_on_the_page_in_order(tmp_path, full):
    page = written(tmp_path, full)
    assert re.findall(r'<section id="(\w+)">', page) == SECTIONS
    assert page.startswith("<!DOCTYPE html>")
    assert 'name="viewport"' in page
    assert "prefers-color-scheme: dark" in page
    assert "Median of 3 runs; below it the lowest and the highest." in page
    assert "Runs that diverged" in page
    assert list(tmp_path.iterdir()) == [tmp_path / "experiment.html"]


def test_empty_parts_are_left_out(tmp_path, full):
    assert "<section" not in written(tmp_path, ExperimentReport("only a title", "and a sentence"))
    assert re.findall(r'<section id="(\w+)">', written(tmp_path, replace(full, metrics=()))) == SECTIONS[1:]
    assert 'id="figures"' not in written(tmp_path, replace(full, figures=()))
    plain = {"A": {"distance": Cell((1.0,))}}
    page = written(tmp_path, replace(full, rows=plain, diverged={}))
    assert "published" not in page
    assert "Runs that diverged" not in page
    assert "One run each." in page


def test_the_table_shows_medians_spreads_and_published_numbers(tmp_path, full):
    page = written(tmp_path, full)
    assert row_of(page, "AF") == [
        "AF",
        "0.580<small>0.510–0.600</small>",
        "0.58",
        "0.800<small>0.700–0.900</small>",
        "0.99",
        "−3.94<small>−4.50 – −3.20</small>",
    ]
    assert row_of(page, "M-flow <A>") == [
        "M-flow <A><small>1 of 3 diverged</small>",
        "<strong>0.00850</strong><small>0.00800–0.00900</small>",
        "0.038",
        "<strong>0.950</strong><small>1 of 3 runs</small>",
        "",
        "–",
    ]


def test_what_diverged_is_shown_as_such(tmp_path, full):
    page = written(tmp_path, full)
    assert row_of(page, "OT") == [
        "OT<small>3 of 3 diverged</small>",
        "diverged",
        "0.007",
        "diverged",
        "",
        "diverged",
    ]
    counted = written(tmp_path, replace(full, rows={"A": {}}, diverged={"A": 2}))
    assert row_of(counted, "A")[:2] == ["A<small>2 of 2 diverged</small>", "diverged"]


@pytest.mark.parametrize(
    ("better", "medians", "bold"),
    [
        ("lower", [1.0, 2.0, 3.0], "A"),
        ("higher", [1.0, 2.0, 3.0], "C"),
        ("lower", [-1.0, 0.0, NAN], "A"),
        ("lower", [1.0, 1.0001, 2.0], "AB"),
        ("lower", [1.0, 1.0001, NAN], ""),
        ("lower", [0.0, 1e-17, NAN], "A"),
        ("lower", [NAN, NAN, NAN], ""),
        ("higher", [NAN, 1.0, NAN], ""),
        (None, [1.0, 2.0, 3.0], ""),
    ],
)
def test_the_best_is_bold(tmp_path, better, medians, bold):
    rows = {name: {"m": Cell((v,))} for name, v in zip("ABC", medians, strict=True)}
    page = written(tmp_path, ExperimentReport("t", "s", metrics=[Metric("m", "", better)], rows=rows))
    assert "".join(name for name in "ABC" if "<strong>" in row_of(page, name)[1]) == bold


def test_text_is_escaped_and_nothing_is_fetched(tmp_path, full):
    page = written(tmp_path, full)
    assert "<script" not in page
    assert "Circle &lt;script&gt;" in page
    for tag in ("<b>", "<i>", "<A>", "<and>", "<two>"):
        assert tag not in page
    assert not re.search(r"""(src|href)\s*=\s*["']?\s*(https?:)?//|url\(|@import""", page)
    assert set(re.findall(r'(?:src|href)="([^":]*:)', page)) == {"data:"}


def test_pictures_are_inside_at_half_their_size(tmp_path, full):
    page = written(tmp_path, full)
    found = re.findall(
        r'<img[^>]*src="data:image/png;base64,([^"]+)" width="(\d+)" height="(\d+)" alt="([^"]*)"', page
    )
    assert [alt for *_, alt in found] == ["The &#34;learned&#34; circle", "Posterior"]
    for (data, width, height, _), figure in zip(found, full.figures, strict=True):
        assert base64.b64decode(data) == figure.png
        assert Image.open(io.BytesIO(figure.png)).size == (int(width), int(height))
    assert re.findall(r'<figure style="width:(\d+)px">', page) == ["350", "720"]
    assert page.count("<figcaption") == 1


@pytest.mark.parametrize(("width", "shown"), [(300, 600), (720, 720), (1500, 720)])
def test_small_images_are_enlarged_by_whole_multiples(tmp_path, width, shown):
    stream = io.BytesIO()
    Image.new("L", (width, 20)).save(stream, "PNG")
    figure = Figure("Samples", "", stream.getvalue(), pixelated=True)
    page = written(tmp_path, ExperimentReport("t", "s", figures=[figure]))
    assert f'<figure style="width:{shown}px">' in page
    assert '<img class="pixelated"' in page


@pytest.mark.parametrize("cut", [0, 4, 2000])
def test_a_picture_that_is_none_is_an_error(tmp_path, full, cut):
    figure = full.figures[0]
    with pytest.raises(DataError, match="the figure 'broken'"):
        written(tmp_path, replace(full, figures=[Figure("broken", "", figure.png[:cut])]))
    assert list(tmp_path.iterdir()) == []


def test_a_page_that_cannot_be_written(tmp_path, full):
    (tmp_path / "experiment.html").mkdir()
    with pytest.raises(IsADirectoryError, match=r"experiment\.html"):
        write_experiment(tmp_path / "experiment.html", full)
    assert [p.name for p in tmp_path.iterdir()] == ["experiment.html"]


def chromium(tmp_path, *arguments):
    command = [
        CHROMIUM,
        *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr"),
        *("--no-first-run", "--disable-background-networking", f"--user-data-dir={tmp_path / 'profile'}"),
        *("--virtual-time-budget=2000", *arguments),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, done.stderr


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on PATH")
class TestInABrowser:
    def test_it_opens_without_an_error(self, tmp_path, full):
        page = write_experiment(tmp_path / "experiment.html", full)
        dom, log = chromium(tmp_path, "--dump-dom", page.as_uri())
        assert re.findall(r'<section id="(\w+)">', dom) == SECTIONS
        assert "CONSOLE" not in log, log

    def test_it_draws_the_pictures(self, tmp_path, full):
        colours = {"one": (200, 30, 30), "two": (30, 30, 200)}
        page = write_experiment(
            tmp_path / "experiment.html",
            replace(full, figures=[Figure(name, "", plain_png(colour)) for name, colour in colours.items()]),
        )
        shot = tmp_path / "shot.png"
        chromium(tmp_path, "--window-size=1000,1800", f"--screenshot={shot}", page.as_uri())
        picture = np.asarray(Image.open(shot).convert("RGB")).astype(int)
        places = []
        for colour in colours.values():
            rows, columns = np.nonzero(np.abs(picture - np.array(colour)).sum(-1) < 12)
            assert len(rows) == pytest.approx(200 * 100, rel=0.02)  # half its size, with round corners
            places.append((rows.min(), columns.min()))
        assert places[0][0] == places[1][0]  # beside each other
        assert places[0][1] < places[1][1] - 200

    @pytest.mark.parametrize("width", [360, 900])
    def test_nothing_is_wider_than_the_window(self, tmp_path, full, width):
        metrics = [replace(full.metrics[0], name=f"{full.metrics[0].name} {i}") for i in range(9)]
        rows = {name: {m.name: cells["distance"] for m in metrics} for name, cells in full.rows.items()}
        wide = replace(full, metrics=metrics, rows=rows)
        page = write_experiment(tmp_path / "experiment.html", wide).read_text(encoding="utf-8")
        style = f"width:{width}px;height:900px;border:0"
        frame = f'<iframe id="f" style="{style}" srcdoc="{html.escape(page)}"></iframe>'
        inside = "f.contentDocument"
        decoded = f"[...{inside}.images].every(i => i.complete && i.naturalWidth)"
        # Of a table that sticks out on the left the first column could not be reached.
        left = f"{inside}.querySelector('.results').getBoundingClientRect().left >= 0"
        measure = f"document.title = [{inside}.documentElement.scrollWidth, {decoded}, {left}]"
        wrapper = tmp_path / "wrapper.html"
        wrapper.write_text(f"{frame}<script>onload = () => {{ {measure} }}</script>", encoding="utf-8")
        dom, _ = chromium(tmp_path, "--dump-dom", wrapper.as_uri())
        assert re.search(r"<title>(.+)</title>", dom)[1] == f"{width},true,true"
