"""The house keeps its floors apart, and a name on the command line costs nothing until it is used."""

import ast
import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import mfimage

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mfimage"
LINKED = ("models", "datasets", "eval")
FLOORS = (  # from the ground up: a room imports its own files, its floor, and what lies below
    {
        "errors",
        "_torchvision",
        "settings",
        "model_config",
        "config",
        "files",
        "limits",
        "outputs",
        "modes",
        "noise",
        "console",
        "signals",
        "streams",
        "tensors",
        "hub",
    },
    {"models", "datasets"},
    {
        "inputs",
        "tiles",
        "luma",
        "losses",
        "algorithms",
        "augmentation",
        "muon",
        "decisions",
        "budget",
        "checkpoints",
        "schedule",
        "fit",
        "run",
        "pretrained",
        "views",
    },
    {"eval"},
    {"denoising", "ood"},
    {"account", "phases", "results", "card", "sharing", "training"},
    {"experiments"},
    {"clothes_demo", "doctor"},
    {"plugs"},
    {"cli", "__main__"},
)
STRANGERS = ({"models", "datasets"}, {"denoising", "ood"})  # on one floor, and nothing of each other's
HEAVY = ("torch", "numpy", "PIL", "nflows", "torchvision", "scipy", "accelerate", "safetensors")


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def exists(module):
    path = ROOT.joinpath(*module.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def imports(path, source):
    """Full names of the modules that a file with this source imports, at its top or inside its functions."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*parents, *([node.module] if node.module else [])])
            inner = [f"{base}.{alias.name}" for alias in node.names]
            yield from (name if base.startswith("mfimage") and exists(name) else base for name in inner)


def room(module):
    return module.split(".")[1]


def floor(module):
    (level,) = [i for i, rooms in enumerate(FLOORS) if room(module) in rooms]
    return level


def edges():
    """Every import within the package, as pairs of full module names; the lazy package itself apart."""
    for path in sorted(PACKAGE.rglob("*.py")):
        here = module_name(path)
        for target in imports(path, path.read_text(encoding="utf-8")):
            if target.startswith("mfimage.") and target != here and here != "mfimage":
                yield here, target


def test_every_file_stands_on_a_floor_and_imports_nothing_from_above():
    found = list(edges())
    rooms = {room(module_name(path)) for path in PACKAGE.rglob("*.py") if module_name(path) != "mfimage"}
    assert set().union(*FLOORS) == rooms
    assert [f"{a} imports {b}" for a, b in found if floor(b) > floor(a)] == []
    assert [f"{a} imports {b}" for a, b in found if {room(a), room(b)} in STRANGERS] == []
    assert len(found) > 200  # the walk sees imports at all


def test_no_two_files_import_each_other_round_a_circle():
    counted = json.loads(run_script("benchmarks/size.py"))
    assert counted["circles"] == []


def run_script(path):
    done = subprocess.run([sys.executable, path], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


def test_the_walk_resolves_every_way_to_import():
    source = (
        "from ..datasets import loading\nfrom . import charts\ndef f():\n    import mfimage.eval.metrics\n"
    )
    found = list(imports(PACKAGE / "models" / "new.py", source))
    assert found == ["mfimage.datasets.loading", "mfimage.models.charts", "mfimage.eval.metrics"]


def loaded_after(statement):
    code = f"import sys\n{statement}\nimport json; print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize(
    "statement",
    [
        "import mfimage",
        "import mfimage.cli",
        "import mfimage.cli\ntry: mfimage.cli.app(['train', '--help'])\nexcept SystemExit: pass",
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(statement):
    assert loaded_after(statement).isdisjoint(HEAVY)


def test_help_costs_less_than_a_quarter_of_an_import_of_torch():
    def cpu_seconds(*words):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    both = [(cpu_seconds("-m", "mfimage", "--help"), cpu_seconds("-c", "import torch")) for _ in range(2)]
    assert min(ours for ours, _ in both) < 0.25 * max(torchs for _, torchs in both), both


@pytest.mark.parametrize("name", LINKED)
def test_rooms_are_linked_at_the_root(name):
    link = ROOT / name
    assert link.is_symlink()
    assert link.resolve() == PACKAGE / name


@pytest.mark.parametrize("name", mfimage.__all__)
def test_public_names_resolve(name):
    assert getattr(mfimage, name) is not None
    assert name in dir(mfimage)


def test_other_names_are_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = mfimage.nonsense
