"""Whether mfimage installs and works where nothing of it is: built, installed, tried, removed.

A source archive and a wheel are built from a copy of what git tracks; the wheel is installed into a new
virtual environment with what it asks for (torch and torchvision as constraints.txt has them). There, in an
empty folder: `mfimage doctor`, a short `mfimage demo`, a model read from Python that denoises and gives
log-densities, `pip uninstall`. With --quick the wheel alone is installed, beside the packages that are here,
and there is no doctor.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import put, say

ROOT = Path(__file__).parents[1]
DEVELOPERS = ("pytest", "ruff", "mypy", "torch-fidelity", "clean-fid", "prdc")
SHORT = {
    "dim": 8, "steps": 20, "density_steps": 20, "batch_size": 64, "warmup": 5, "noise": 0.0, "flip": False,
    "model": {"width": 4, "hidden": 32, "density_width": 32},
}  # fmt: skip
USE = """
import json, mfimage
model = mfimage.from_pretrained("demo")
x = mfimage.load("fashion-mini", "test").batch(slice(0, 4))
clean, density = mfimage.denoise(x, model, sigma=0.1), model.log_prob(x)
assert clean.shape == x.shape and clean.isfinite().all() and density.isfinite().all()
print(json.dumps(mfimage.__file__))
"""


def run(*command: str | Path, folder: Path, path: Path | None = None) -> str:
    """Run a command in a folder; what it says on stdout, RuntimeError with the end of it if it fails."""
    settings = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    settings |= {"PYTHONPATH": str(path)} if path else {}
    done = subprocess.run(
        [str(part) for part in command], cwd=folder, env=settings, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: {(done.stderr or done.stdout)[-2000:]}")
    return done.stdout


def timed(seconds: dict[str, float], name: str, work: Callable[[], Any]) -> Any:
    """Do some work, and note how long it took."""
    began = time.monotonic()
    found = work()
    seconds[name] = round(time.monotonic() - began, 1)
    say(f"{name}: {seconds[name]} s")
    return found


def tracked_copy(folder: Path) -> Path:
    """Copy what git tracks, or would."""
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", folder=ROOT)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    return folder


def asked_for(wheel: Path) -> list[str]:
    """List what the wheel requires, but not what is optional."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        text = archive.read(name).decode()
    return [one for one in re.findall(r"^Requires-Dist: (.+)$", text, re.M) if "extra ==" not in one]


def built(folder: Path, quick: bool) -> tuple[Path, float | None]:
    """Build a wheel, and from a source archive unless it is to be quick; with the archive's size in MB."""
    source = tracked_copy(folder / "source")
    if quick:
        run(
            sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder / "dist", ".", folder=source
        )
        return next((folder / "dist").glob("*.whl")), None
    run(sys.executable, "-m", "venv", folder / "builder", folder=folder)
    python = folder / "builder/bin/python"
    run(python, "-m", "pip", "install", "-q", "build", folder=folder)
    run(python, "-m", "build", "--outdir", folder / "dist", ".", folder=source)
    (archive,) = (folder / "dist").glob("*.tar.gz")
    return next((folder / "dist").glob("*.whl")), archive.stat().st_size / 1e6


def measure(folder: Path, quick: bool) -> dict[str, Any]:
    """Build, install, try, remove."""
    seconds: dict[str, float] = {}
    wheel, archive_mb = timed(seconds, "build", lambda: built(folder, quick))
    empty, place = folder / "empty", folder / "place"
    empty.mkdir()
    if quick:
        python, path = Path(sys.executable), place
        install = [python, "-m", "pip", "install", "-q", "--no-deps", "--target", place, wheel]
    else:
        run(sys.executable, "-m", "venv", place, folder=folder)
        python, path = place / "bin/python", None
        install = [python, "-m", "pip", "install", "-q", wheel, "-c", ROOT / "constraints.txt"]
    timed(seconds, "install", lambda: run(*install, folder=empty))
    mfimage = (python, "-m", "mfimage")
    say(run(*mfimage, "--version", folder=empty, path=path).strip())
    if not quick:
        timed(seconds, "doctor", lambda: run(*mfimage, "doctor", "--device", "cpu", folder=empty))
    (empty / "short.json").write_text(json.dumps(SHORT))
    demo = (*mfimage, "demo", "-o", "demo", "--config", "short.json", "--device", "cpu")
    timed(seconds, "demo", lambda: run(*demo, folder=empty, path=path))
    home = timed(seconds, "use", lambda: json.loads(run(python, "-c", USE, folder=empty, path=path)))
    works = Path(home).is_relative_to(place) and (empty / "demo/report.html").exists()
    if not quick:
        run(python, "-m", "pip", "uninstall", "-q", "-y", "mfimage", folder=empty)
        works = works and not list(place.rglob("site-packages/mfimage"))
    wanted = asked_for(wheel)
    return {
        "requires_dist": len(wanted),
        "developers_only": [one for one in wanted if one.startswith(DEVELOPERS)],
        "wheel_mb": wheel.stat().st_size / 1e6,
        "archive_mb": archive_mb,
        "seconds": seconds,
        "works": works,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="beside the packages that are here")
    is_quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory() as temporary:
        put(is_quick, **measure(Path(temporary), is_quick))
