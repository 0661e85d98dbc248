"""Reading pages: their sections, texts, pictures and plots, and what every page keeps."""

import base64
import hashlib
import html
import io
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
from PIL import Image


def sections_of(page):
    return re.findall(r'<section id="([\w-]+)">', page)


def text_of(page, section):
    """The words of a section; only bold is left of its tags."""
    body = re.search(rf'<section id="{section}">(.*?)</section>', page, re.S)[1]
    return html.unescape(re.sub(r"\s+", " ", re.sub("<(?!/?strong)[^>]*>", " ", body)))


def pictures_of(page):
    """Each picture that is not part of a plot, as an array, with its alternative text."""
    found = re.findall(
        r'<img src="data:image/png;base64,([^"]+)" width="(\d+)" height="(\d+)" alt="([^"]*)"', page
    )
    assert len(found) == page.count("<img")
    pictures = []
    for data, width, height, words in found:
        picture = Image.open(io.BytesIO(base64.b64decode(data)))
        assert picture.size == (int(width), int(height))
        pictures.append((np.asarray(picture), html.unescape(words)))
    return pictures


class Drawing:
    """A plot's panel: the paths of a colour, the texts with their places, the raster layers."""

    def __init__(self, svg):
        self.root = ElementTree.fromstring(svg)
        self.size = tuple(map(float, self.root.get("viewBox").split()[2:]))

    def paths(self, colour, kind="stroke"):
        """Points (n, 2) of each path that is drawn in a colour of the page."""
        wanted = f"{kind}: var(--{colour})"
        paths = {f"#{p.get('id')}": _points(p) for p in self.root.iter("path")}
        found = [
            _points(p) for p in self.root.iter("path") if p.get("clip-path") and wanted in p.get("style")
        ]
        used = [use for use in self.root.iter("use") if wanted in use.get("style")]
        return found + [paths[u.get("href")] + [float(u.get("x")), float(u.get("y"))] for u in used]

    def texts(self):
        """All that is written."""
        return {t.text for t in self.root.iter("text")}

    def ticks(self, axis):
        """Where the numbers along an axis ("x" or "y") stand."""
        anchor = {"x": "text-anchor: middle", "y": "text-anchor: end"}[axis]
        texts = [t for t in self.root.iter("text") if anchor in t.get("style")]
        return {t.text: float(t.get(axis)) for t in texts}

    def layers(self):
        """(left, top, width, height) and pixels of each raster layer; matplotlib turns them upside down."""
        found = []
        for layer in self.root.iter("image"):
            x, y, width, height = (float(layer.get(name)) for name in ("x", "y", "width", "height"))
            data = base64.b64decode(layer.get("href").split(",")[1])
            found.append(((x, -y, width, height), np.asarray(Image.open(io.BytesIO(data)))[::-1]))
        return found


def _points(path):
    return np.array(re.findall(r"-?[\d.]+", path.get("d", "")), float).reshape(-1, 2)


class _Tags(HTMLParser):
    """Holds that every element is closed by its own end tag, and collects them."""

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def check_page(page):
    """Hold what every page keeps: well formed, self-contained, no script but of sliders, images in words."""
    tags = _Tags()
    tags.feed(page)
    tags.close()
    assert tags.open == []
    names = {tag for tag, _ in tags.seen}
    assert not names & {"link", "iframe", "object", "b", "x"}
    scripts = re.findall(r"<script>(.*?)</script>", page, re.S)
    assert (
        len(scripts) == page.count("<script") == ("input" in names)
    )  # that of sliders, and no other may run
    for script in scripts:
        allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"script-src 'sha256-{allowed}'\">" in page
    assert "script-src 'unsafe" not in page
    assert page.startswith("<!DOCTYPE html>")
    assert "default-src 'none'" in page
    assert "prefers-color-scheme: dark" in page
    assert 'name="viewport"' in page
    ids = [attrs["id"] for _, attrs in tags.seen if "id" in attrs]
    for tag, attrs in tags.seen:
        address = attrs.get("src") or attrs.get("href") or "#"
        assert address.startswith(("data:", "#")), address
        assert address[1:] in ["", *ids] or address.startswith("data:"), address
        assert tag != "img" or len(attrs["alt"]) > 3
        assert tag != "input" or (attrs["type"], len(attrs["aria-label"]) > 5) == ("range", True)
        assert attrs.get("role") != "img" or len(attrs["aria-label"]) > 5
        assert not any(name.startswith("on") for name in attrs)
    assert len(sections_of(page)) == len(set(sections_of(page))) > 0
    body = page[page.index("<body>") :]
    assert not re.search(r"""url\((?!#)|@import|>nan<|>None<""", body)
    return tags.seen
