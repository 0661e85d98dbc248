"""Headless Chromium, for tests of pages."""

import html
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on PATH"
)


def chromium(folder, *arguments):
    """Run it with a profile in a folder: (standard output, log)."""
    command = [
        CHROMIUM,
        *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr"),
        *("--no-first-run", "--disable-background-networking", f"--user-data-dir={folder / 'profile'}"),
        *("--virtual-time-budget=2000", *arguments),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, done.stderr


def screenshot(folder, page, width, *arguments):
    """Draw a page: (height, width, 3) integers."""
    shot = folder / "shot.png"
    chromium(folder, f"--window-size={width},2000", f"--screenshot={shot}", *arguments, page.as_uri())
    return np.asarray(Image.open(shot).convert("RGB")).astype(int)


def on_a_phone(folder, page, measure):
    """Open a page 360 pixels wide and compute a JavaScript expression of its document `d`."""
    frame = (
        '<iframe id="f" style="width:360px;height:900px;border:0" '
        f'srcdoc="{html.escape(page.read_text(encoding="utf-8"))}"></iframe>'
    )
    script = f"onload = () => {{ const d = f.contentDocument; document.title = {measure} }}"
    wrapper = folder / "wrapper.html"
    wrapper.write_text(f"{frame}<script>{script}</script>", encoding="utf-8")
    dom, _ = chromium(folder, "--dump-dom", wrapper.as_uri())
    return re.search(r"<title>(.*?)</title>", dom)[1]
