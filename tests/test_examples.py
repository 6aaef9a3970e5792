"""Every example runs alone and says what it has found."""

import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))
SHORT = {"distill": ["--epochs", "1"]}


@pytest.mark.slow  # each compiles models of its own
@pytest.mark.parametrize("path", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_it_runs(path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(path), *SHORT.get(path.stem, [])])
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out.strip()
    assert "python examples/" + path.name in path.read_text()
