"""What the package says of itself, and what of it is shipped."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import mfimage

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
NAMED = {
    "torch",
    "torchvision",
    "nflows",
    "pillow",
    "scikit-image",
    "pytorch-fid",
    "pytest",
}  # by whoever ordered it


def name(requirement):
    return re.match(r"[\w-]+", requirement)[0]


def test_the_requirements_of_development_are_those_of_the_package_and_its_groups():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    listed = [line for line in lines if line and not line.startswith("#")]
    groups = [one for group in PROJECT["dependency-groups"].values() for one in group]
    assert listed == [*PROJECT["project"]["dependencies"], *groups]
    assert {name(one) for one in listed} >= NAMED


def test_running_asks_for_nothing_that_only_developers_need():
    ours = {name(one) for one in PROJECT["project"]["dependencies"]}
    sources = [path for path in (ROOT / "mfimage").rglob("*.py")]
    text = "\n".join(path.read_text() for path in sources)
    modules = {"scikit-image": "skimage", "scikit-learn": "sklearn", "pillow": "PIL"}
    for one in ours:
        module = modules.get(one, one.replace("-", "_"))
        assert re.search(rf"(import|from) {module}\b|torch\.utils\.{module}", text), one
    assert not ours & {"pytest", "pytest-xdist", "ruff", "mypy"}


def test_extras_ask_for_the_versions_that_are_tested():
    tested = {name(one): one for group in PROJECT["dependency-groups"].values() for one in group}
    extras = [one for extra in PROJECT["project"]["optional-dependencies"].values() for one in extra]
    assert all(tested.get(name(one), one) == one for one in extras)


def test_the_version_stands_in_one_place():
    assert metadata.version("mfimage") == mfimage.__version__
    assert f"\nversion: {mfimage.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_types_and_licences_are_shipped():
    assert (Path(mfimage.__file__).parent / "py.typed").exists()
    listed = [path for pattern in PROJECT["project"]["license-files"] for path in ROOT.glob(pattern)]
    assert {path.name for path in listed} == {"LICENSE", "fashion-mini.LICENSE.txt"}
