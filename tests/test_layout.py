"""The floors of the package: a file imports only from lower ones, so that data knows no model."""

import ast
from pathlib import Path

import pytest

import vix_flax

ROOT = Path(vix_flax.__file__).parent
FLOORS = [
    {
        "suggest",
        "processes",
        "checks",
        "host_memory",
        "user_cache",
        "flags",
        "stop",
        "reason",
        "deterministic",
        "flops",
        "cores",
    },
    {"array_bytes"},
    {"layers", "data", "training", "timing"},
    {"attention"},
    {"mixers"},
    {"models"},
    {"zoo", "inspect", "resize", "attention_maps"},
    {"presets", "features", "wrappers"},
    {"convert", "recipes", "run_folder"},
    {"run"},
    {"task", "compare", "preflight"},
    {"trainer", "bench", "scale", "demo"},
    {"launch", "show", "scale_report"},
    {"progress", "watchers", "bench_command", "demo_page"},
    {"train_command", "demo_command"},
    {"cli"},
    {"__main__", "__init__"},
]
FLOOR = {part: floor for floor, parts in enumerate(FLOORS) for part in parts}
FILES = sorted(ROOT.rglob("*.py"))


def part_of(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_parts(path):
    """Parts of the package that a file names in its imports, wherever they stand."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "vix_flax":
            yield from (f"vix_flax.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES])
def test_imports_point_down(path):
    here = part_of(path)
    assert here in FLOOR, f"{here} has no floor yet"
    for module in imported_parts(path):
        package, _, rest = module.partition(".")
        there = rest.split(".")[0]
        if package == "vix_flax" and there and there != here:
            assert FLOOR[there] < FLOOR[here], f"{path.name} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES])
def test_a_file_opens_with_what_it_is_for_and_stays_short(path):
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text))
    assert len(text.splitlines()) <= 340
