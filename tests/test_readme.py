"""What README and CONTRIBUTING show is true: their Python runs, their table is the zoo's."""

import re
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from vix_flax.cli import make_parser

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
RESULTS = ROOT / "benchmarks" / "results"
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


def blocks(text, language):
    """Fenced blocks of a language, with the indent of their list item taken off."""
    for indent, body in re.findall(rf"^( *)```{language}\n(.*?)^ *```", text, re.M | re.S):
        yield re.sub(rf"^{indent}", "", body, flags=re.M)


@pytest.mark.parametrize("text", [README, CONTRIBUTING], ids=["README", "CONTRIBUTING"])
def test_python_blocks_run_in_order(text):
    names = {"jax": jax, "jnp": jnp}
    code = list(blocks(text, "python"))
    assert code
    for block in code:
        exec(compile(block, "block", "exec"), names)


@pytest.mark.parametrize("name", ["swap", "data"])
def test_tables_are_those_measured(name, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    script = runpy.run_path(str(ROOT / "benchmarks" / f"{name}.py"))
    results = sorted(RESULTS.glob(f"{name}_*.json"))
    assert results
    for path in results:
        assert script["saved_table"](path.stem) in README, path


def test_tables_between_markers_are_those_measured(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    tables = runpy.run_path(str(ROOT / "benchmarks" / "tables.py"))
    assert tables["filled"](README) == README, "run: python benchmarks/tables.py"


def test_commands_are_ones_the_parser_takes():
    commands = re.findall(r"^vix (.*?)(?:  +#.*)?$", README, re.M)
    assert len(commands) >= 8
    for command in commands:
        make_parser().parse_args(command.replace("'", "").split())


def test_links_between_files_lead_somewhere():
    for text in (README, CONTRIBUTING):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
            assert (ROOT / target).exists(), target
        for target in re.findall(r"`(vix_flax/[\w./]+|tests/[\w./]+)`", text):
            assert (ROOT / target).exists() or "window" in target, target
