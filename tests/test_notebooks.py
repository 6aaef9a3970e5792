"""Notebooks are stored clean, link to what is there, and run from top to bottom."""

import ast
import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NAMES = [path.stem for path in NOTEBOOKS]
MAIN = "https://colab.research.google.com/github/vix-flax/vix_flax/blob/main/notebooks"
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)


def cells(path, kind):
    """The sources of its code or markdown cells."""
    stored = json.loads(path.read_text())["cells"]
    return ["".join(cell["source"]) for cell in stored if cell["cell_type"] == kind]


def test_there_are_four():
    assert NAMES == ["colab_tpu", "compare_attention", "quickstart", "swap_attention"]


@each
def test_it_is_stored_without_outputs_for_any_python_3(path):
    stored = json.loads(path.read_text())
    assert (stored["nbformat"], stored["nbformat_minor"]) == (4, 5)
    assert stored["metadata"]["kernelspec"]["name"] == "python3"
    ids = [cell["id"] for cell in stored["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in stored["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None


@each
def test_it_opens_with_a_title_and_its_own_badge(path):
    title, _, badge = cells(path, "markdown")[0].split("\n")[:3]
    assert re.match(r"# \w", title)
    assert badge.startswith("[![Open in Colab](")
    assert badge.endswith(f"]({MAIN}/{path.name})")


@each
def test_its_code_parses_and_uses_public_names_alone(path):
    for source in cells(path, "code"):
        # Magics stand in a line of their own.
        tree = ast.parse(re.sub(r"^( *)%\w+ .*$", r"\1pass", source, flags=re.M))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                names = [*node.module.split("."), *(alias.name for alias in node.names)]
            elif isinstance(node, ast.Attribute):
                names = [node.attr]
            else:
                continue
            assert not any(name.startswith("_") for name in names), names
        assert "sys.path" not in source


@each
def test_one_line_makes_it_small(path):
    line = 'SMOKE = os.environ.get("VIX_FLAX_SMOKE") == "1"'
    sources = cells(path, "code")
    assert sum(source.count(line) for source in sources) == 1
    assert any(line in source for source in sources[:2])


@each
def test_links_between_files_lead_somewhere(path):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", "\n".join(cells(path, "markdown")))
    assert links
    for link in links:
        assert (path.parent / link).exists(), link


def executed(path, folder, monkeypatch):
    """Its output as text, and how many pictures, after a run in `folder` by this Python."""
    pytest.importorskip("nbclient", reason='notebooks run with: pip install -e ".[notebooks]"')
    import nbformat
    from ipykernel.kernelspec import install
    from nbclient import NotebookClient

    # Nothing outside the folder is read or written, and the kernel is this interpreter.
    for name in ("JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(folder / "jupyter"))
    monkeypatch.setenv("JUPYTER_PATH", str(folder / "prefix" / "share" / "jupyter"))
    install(kernel_name="running", prefix=str(folder / "prefix"))
    monkeypatch.setenv("VIX_FLAX_SMOKE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder / "datasets"))
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    monkeypatch.delenv("XLA_FLAGS")  # they ask for one device
    # Nobody listens there: as without a network.
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)

    notebook = nbformat.read(path, as_version=4)
    code = "import sys; print(sys.executable)"
    notebook.cells.insert(0, nbformat.v4.new_code_cell(code))
    work = folder / "work"
    work.mkdir()
    resources = {"metadata": {"path": str(work)}}
    NotebookClient(notebook, timeout=600, kernel_name="running", resources=resources).execute()
    first, *rest = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    assert Path(first[0]["text"].strip()) == Path(sys.executable)
    outputs = [output for each in rest for output in each]
    shown = [output["data"] for output in outputs if "data" in output]
    text = [output["text"] for output in outputs if output["output_type"] == "stream"]
    text += [data["text/markdown"] for data in shown if "text/markdown" in data]
    return "\n".join(text), sum("image/png" in data for data in shown)


def percents(pattern, text):
    """The numbers that a pattern finds, as shares."""
    found = [float(number) / 100 for number in re.findall(pattern, text)]
    assert found, text
    return found


CHANCE = 0.1


@pytest.mark.slow  # a kernel that compiles and trains models
def test_quickstart_learns_to_read_and_looks_inside(tmp_path, monkeypatch):
    text, pictures = executed(ROOT / "notebooks/quickstart.ipynb", tmp_path, monkeypatch)
    assert percents(r"test accuracy ([\d.]+)%", text)[0] > 0.6
    assert "(1, 2, 4, 65, 65)" in text
    assert pictures == 4


@pytest.mark.slow  # a kernel that compiles and trains models
def test_compare_attention_ends_with_a_table_of_all(tmp_path, monkeypatch):
    text, pictures = executed(ROOT / "notebooks/compare_attention.ipynb", tmp_path, monkeypatch)
    rows = re.findall(r"^\| (\w+) \| [\d,]+ \| ([\d.]+)% \| ([\d.]+) \| ([\d.,]+) \| ", text, re.M)
    assert [name for name, *_ in rows] == ["softmax", "nystrom", "linear", "fourier"]
    assert all(float(accuracy) / 100 > 1.5 * CHANCE for _, accuracy, *_ in rows), text
    assert pictures == 2


@pytest.mark.slow  # a kernel that compiles and trains models
def test_colab_tpu_goes_on_after_a_disconnect_and_says_what_it_does_without(tmp_path, monkeypatch):
    text, pictures = executed(ROOT / "notebooks/colab_tpu.ipynb", tmp_path, monkeypatch)
    assert "no TPU or GPU: goes on with 4 CPU devices" in text
    assert "no CIFAR-10 here: goes on with digits instead" in text
    assert len(re.findall(r"has images \(8, 8, 8, 1\)", text)) == 4
    begun, gone_on = text.split("disconnected after 59 steps")
    assert "begins" in begun
    assert "goes on from step 39; " in gone_on
    assert re.findall(r"^epoch +(\d+)", begun, re.M) == ["1"]
    assert re.findall(r"^epoch +(\d+)", gone_on, re.M) == ["2", "3", "4"]
    assert percents(r"test accuracy ([\d.]+)%", text)[0] > 2 * CHANCE
    assert pictures == 1
    assert (tmp_path / "work/vix_runs/vin-digits-smoke/checkpoint").is_dir()


@pytest.mark.slow  # a kernel that compiles and trains models
def test_swap_attention_keeps_and_brings_back_accuracy(tmp_path, monkeypatch):
    text, pictures = executed(ROOT / "notebooks/swap_attention.ipynb", tmp_path, monkeypatch)
    (before,) = percents(r"softmax: test accuracy ([\d.]+)%", text)
    (right_after,) = percents(r"right after the swap: ([\d.]+)%", text)
    (labels,) = percents(r"nystrom +labels: ([\d.]+)%", text)
    (taught,) = percents(r"nystrom +taught: ([\d.]+)%", text)
    assert before > 4 * CHANCE
    assert right_after < before
    assert min(labels, taught) > 3 * CHANCE
    assert f"| softmax: {before:.1%} |" in text
    assert pictures == 1
