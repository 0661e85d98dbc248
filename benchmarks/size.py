"""How large the package is, and how it hangs together: lines, files, long functions, circles, twin names.

`python benchmarks/size.py [--tree DIR]` counts the Python of DIR/mfimage, by default of this checkout.
"""

from __future__ import annotations

import argparse
import ast
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

LONG_FUNCTION, LONG_FILE = 40, 250
WINGS = ("experiments", "datasets/stylegan", "datasets/synthetic")  # what the paper's experiments need alone


def modules(package: Path) -> dict[str, tuple[Path, ast.Module]]:
    """Every module of a package by its full name, parsed."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = (path, ast.parse(path.read_text(encoding="utf-8")))
    return found


def imported(tree: ast.Module, known: dict[str, tuple[Path, ast.Module]]) -> Iterator[str]:
    """Modules of the package that a module imports, at its top or inside its functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in known else node.module for name in inner)


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other (strongly connected components, Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in edges[name]:
            if other not in index:
                visit(other)
            if other in stack:
                low[name] = min(low[name], low[other])
        if low[name] == index[name]:
            start = stack.index(name)
            if len(stack) - start > 1:
                found.append(sorted(stack[start:]))
            del stack[start:]

    for name in edges:
        if name not in index:
            visit(name)
    return found


def measure(package: Path) -> dict[str, object]:
    """Count everything that the page of benchmarks shows."""
    known = modules(package)
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path, _ in known.values()}
    places = {path: path.relative_to(package).as_posix() for path in lines}
    wings = [path for path, place in places.items() if place.startswith(tuple(f"{w}/" for w in WINGS))]
    folders: Counter[str] = Counter()
    for path, count in lines.items():
        folders[path.parent.relative_to(package).as_posix()] += count
    nodes = [(name, node) for name, (_, tree) in known.items() for node in ast.walk(tree)]
    long = [
        f"{name}.{node.name}"
        for name, node in nodes
        if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno + 1 > LONG_FUNCTION
    ]
    defined = defaultdict(list)
    for name, (_, tree) in known.items():
        for node in tree.body:
            verb = name.startswith("mfimage.cli")  # a verb is called like the function that it calls
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not (verb or node.name.startswith("_")):
                defined[node.name].append(name)
    inner = {
        name: {other for other in imported(tree, known) if not name.startswith(f"{other}.") and other != name}
        for name, (_, tree) in known.items()
    }
    return {
        "lines": sum(lines.values()),
        "files": len(lines),
        "lines_without_wings": sum(lines.values()) - sum(lines[path] for path in wings),
        "files_without_wings": len(lines) - len(wings),
        "folders": dict(sorted(folders.items())),
        "long_functions": sorted(long),
        "long_files": {places[path]: count for path, count in lines.items() if count > LONG_FILE},
        "any": sum(isinstance(node, ast.Name) and node.id == "Any" for _, node in nodes),
        "circles": circles(inner),
        "names_defined_twice": {name: places for name, places in defined.items() if len(places) > 1},
    }


def main() -> None:
    """Print the counts as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    here = Path(__file__).resolve().parents[1]
    parser.add_argument("--tree", type=Path, default=here, help="a checkout, by default this one")
    parser.add_argument("--quick", action="store_true", help="the same: it takes seconds")
    asked = parser.parse_args()
    print(json.dumps({"quick": asked.quick, **measure(asked.tree / "mfimage")}))


if __name__ == "__main__":
    main()
