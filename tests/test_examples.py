"""Every example runs alone, as its first lines say, and finds what it is there to show."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

FOLDER = Path(__file__).parent.parent / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))
SHORT = {"distill": ["--epochs", "1"]}
# The least that the last number of a line must be: ten classes, so chance is 10 %.
ACCURACY = r"(?:accuracy|neighbour) ([\d.]+)%"
LEAST = {
    "byol": 50, "classify": 70, "masked_patches": 40, "new_attention": 50, "own_images": 50,
    "own_train_loop": 50,
}  # fmt: skip
SAID = {
    "attention_maps": r"vit reads this .*\n.*: 3 layers of 4 heads, 65 × 65 each",
    "distill": r"student, taught +[\d.]+% on test",
    "from_torch": r"16 arrays .*\n.* a logit \d\.\de-0[6-9]\n.*missing mlp_head\.1\.weight; left",
    "two_processes": r"process 0 of 2, 32 of 64.*\nprocess 1 of 2, 32 of 64.*\nboth agree",
}
by_name = pytest.mark.parametrize("path", EXAMPLES, ids=[path.stem for path in EXAMPLES])


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs a script in an empty folder, as a user would."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("XLA_FLAGS")  # the tests' programs compile fast and run slowly

    def run(path, *argv):
        command = [sys.executable, str(path), *argv]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=900)

    return run


@pytest.mark.slow  # each compiles and trains models of its own
@by_name
def test_it_runs(path, run, tmp_path):
    done = run(path, *SHORT.get(path.stem, []))
    assert done.returncode == 0, done.stderr
    if path.stem in SAID:
        assert re.search(SAID[path.stem], done.stdout), done.stdout
    else:
        found = re.findall(ACCURACY, done.stdout)
        assert found, done.stdout
        assert float(found[-1]) >= LEAST[path.stem], done.stdout
    if path.stem == "attention_maps":
        with Image.open(tmp_path / "attention_maps.png") as picture:
            assert len(picture.convert("L").getcolors()) > 100  # not an empty page


@pytest.mark.slow
def test_two_processes_end_when_one_fails(run, tmp_path):
    source = (FOLDER / "two_processes.py").read_text()
    joined = "    index, count = shard()\n"
    assert joined in source
    path = tmp_path / "two_processes.py"
    path.write_text(source.replace(joined, joined + "    if index == 1:\n        sys.exit(3)\n"))
    done = run(path)
    assert done.returncode == 1
    assert "a process has failed" in done.stderr


@by_name
def test_its_first_lines_say_how_to_run_it_and_it_uses_public_names_alone(path):
    tree = ast.parse(path.read_text())
    said = ast.get_docstring(tree, clean=False)
    assert f"\n    python examples/{path.name}" in said
    assert re.search(r"Takes about \d+ seconds on 2 cores", said.replace("\n", " "))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names = [*node.module.split("."), *(alias.name for alias in node.names)]
            assert not any(name.startswith("_") for name in names), names


def test_the_list_names_each():
    listed = re.findall(
        r"^\| \[(\w+\.py)\]\(\1\) \| .+ \|$", (FOLDER / "README.md").read_text(), re.M
    )
    assert sorted(listed) == [path.name for path in EXAMPLES]
