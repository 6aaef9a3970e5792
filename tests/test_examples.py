"""Every example runs alone, as its first lines say, and finds what it is there to show."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))
SHORT = {"distill": ["--epochs", "1"]}
# The least that the last number of a line must be: ten classes, so chance is 0.1.
ACCURACY = r"(?:accuracy|neighbour) ([\d.]+)%"
LEAST = {"byol": 50}
SAID = {
    "distill": r"student, taught +[\d.]+% on test",
    "from_torch": r"16 arrays .*\n.* a logit \d\.\de-0[6-9]\n.*missing mlp_head\.1\.weight; left",
}


@pytest.mark.slow  # each compiles and trains models of its own
@pytest.mark.parametrize("path", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_it_runs(path, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("XLA_FLAGS")  # the tests' programs compile fast and run slowly
    command = [sys.executable, str(path), *SHORT.get(path.stem, [])]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    if path.stem in SAID:
        assert re.search(SAID[path.stem], done.stdout), done.stdout
    else:
        found = re.findall(ACCURACY, done.stdout)
        assert found, done.stdout
        assert float(found[-1]) >= LEAST[path.stem], done.stdout


@pytest.mark.parametrize("path", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_its_first_lines_say_how_to_run_it_and_it_uses_public_names_alone(path):
    tree = ast.parse(path.read_text())
    assert f"\n    python examples/{path.name}" in ast.get_docstring(tree, clean=False)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names = [*node.module.split("."), *(alias.name for alias in node.names)]
            assert not any(name.startswith("_") for name in names), names
