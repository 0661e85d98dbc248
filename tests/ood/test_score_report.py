import re

import torch
from tiny import draw_bumps

from mfimage import Detector
from mfimage.datasets.sets import ImageSet, Skipped
from mfimage.ood import drift_of
from mfimage.ood.report import ScoreReport, write_score_report

SECTIONS = ["scores", "roc", "strangest", "usual", "drift", "skipped", "settings"]


def image_set(images, skipped=()):
    return ImageSet(images, "some <set>", "all", tuple(f"{i}.png" for i in range(len(images))), skipped)


def page_of(model, tmp_path, strange):
    detector = Detector(model).calibrate(torch.from_numpy(draw_bumps(600, seed=11))[:, None] / 255, 0.02)
    images = torch.from_numpy(draw_bumps(40, seed=5))[:, None]
    images[7] = 0
    files = image_set(images, (Skipped("bad.png", "not an image"),) if strange else ())
    found = detector.score(files)
    drift = drift_of(found, detector.calibration) if strange else None
    noise = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    others = {"noise": detector.score(noise).scores} if strange else {}
    report = ScoreReport(files, found, detector.calibration, drift, others)
    return write_score_report(tmp_path / "page.html", report).read_text()


def test_every_section_stands_on_the_page(model, tmp_path):
    page = page_of(model, tmp_path, True)
    assert re.findall(r'<section id="(\w+)">', page) == SECTIONS
    assert "some &lt;set&gt;" in page
    assert "<script" not in page
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "bad.png" in page
    assert "threshold" in page
    first = page[page.index('id="strangest"') :]
    assert first.index("7.png") < first.index("<small>", first.index("7.png"))  # the black one leads
    assert re.search(r"<small>(\d+)\.png", first)[1] == "7"
    assert re.search(r"0\.9750 \(0\.9\d+–1\.0000\)", page)  # all but the black one are told from noise


def test_parts_that_were_not_asked_for_are_left_out(model, tmp_path):
    page = page_of(model, tmp_path, False)
    assert re.findall(r'<section id="(\w+)">', page) == ["scores", "strangest", "usual", "settings"]
