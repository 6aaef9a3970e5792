"""What the Markdown files show is true: Python and commands run, links lead somewhere, tables are
those measured.

Commands run as they stand, in a home folder made for them, where `runs/RUN`, `digit.png`, `~/data`
and `~/pets` are what they are called; flags are appended that make them short.
"""

import os
import re
import runpy
import shlex
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import official_archives as official
import pytest
from PIL import Image

from vix_flax.cli import main, make_parser
from vix_flax.data import load_dataset
from vix_flax.presets import attention_grid, list_models

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("[a-z]*/*.md"), *ROOT.glob("vix_flax/data/*.md")])
README = (ROOT / "README.md").read_text()
RESULTS = ROOT / "benchmarks" / "results"
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()

FENCED = r"^( *)```(\w*)\n(.*?)^ *```$"  # the whole block, so that none begins at another's end
SIZES = "--set depth=1 --set dim=16 --set heads=1 --set dim_head=8 --set mlp_dim=16 "
# Appended to what README says, by command.
SMOKE = {
    "vix train": "--epochs 1 --batch-size 8 " + SIZES,
    "vix augment": "",
    "vix bench": "--batch-size 2 --seconds 0.01 " + SIZES,
    "vix bench scale": "--tokens 64,128 --seconds 0.01",
    **dict.fromkeys(
        ("vix eval", "vix compare", "vix predict", "vix attention", "vix data", "vix list",
         "vix summary"), "",
    ),
}  # fmt: skip
# Changed: W&B needs an account (tests/test_watchers.py makes one up), and a backbone that has seen
# digits, which are grey, cannot see CIFAR-10.
REPLACED = {
    " --log-wandb": "",
    "runs/RUN --dataset cifar10": "runs/COLOUR --dataset cifar10",
}
# What is not run here, by how it begins, and why.
ELSEWHERE = {
    "python3 -m venv": ".ci/run makes one",
    "pip install": ".ci/run installs; what follows && runs by itself",
    "pytest": "is running",
    "srun": "needs SLURM",
    "gcloud": "needs a TPU pod",
    "vix demo": "tests/test_demo.py opens it in a browser",
    "import tensorflow_datasets": "tests/data/test_prepared.py",
    "train = tfds.data_source": "tests/data/test_prepared.py",
    "python benchmarks/": "minutes: tests/test_benchmarks.py runs their parts",
    "vix bench scale --dtype bfloat16": "on a GPU: tests/test_bench.py",
    "jupyter lab": "opens a browser: tests/test_notebooks.py runs them",
    "python examples/": "tests/test_examples.py",
}


def blocks(text, *languages):
    """Fenced blocks of these languages, with the indent of their list item taken off."""
    for indent, language, body in re.findall(FENCED, text, re.M | re.S):
        if language in languages:
            yield re.sub(rf"^{indent}", "", body, flags=re.M)


def lines(text):
    """What is typed, line by line, without what is said about it."""
    for block in blocks(text, "", "bash", "console", "sh", "shell"):
        for line in block.splitlines():
            command = re.sub(r"(^|\s+)#.*$", "", line)
            if command:
                yield command


def command_of(line):
    """The words that `SMOKE` knows it by; None if it is no `vix` command, or not of those."""
    words = line.split()
    return next((name for n in (3, 2) if (name := " ".join(words[:n])) in SMOKE), None)


COMMANDS = [line for line in lines(README) if command_of(line)]
BY_HAND = [line for line in COMMANDS if "HOST:PORT" in line]


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


def test_the_grid_is_the_zoos():
    grid = attention_grid(list_models())
    rows = re.search(r"<!-- grid -->\n(.*?)<!-- end -->", README, re.S)[1].splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    attentions = [name.strip("`") for name in cells[0][1:]]
    seen = []
    for patterns, *marks in cells[2:]:
        for name in (n for p in patterns.split() for n in list_models(p.strip("`"))):
            seen.append(name)
            for attention, mark in zip(attentions, marks, strict=True):
                works, remark = grid[name].pop(attention)
                assert (mark[0] == "✓", len(mark) > 1) == (works, bool(remark)), (name, attention)
    assert sorted(seen) == list_models()
    assert not any(grid.values())  # no attention is missing


def test_commands_are_ones_the_parser_takes():
    assert len(COMMANDS) >= 30
    for line in COMMANDS:
        make_parser().parse_args(shlex.split(line)[1:])


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_line_to_type_runs_in_some_test(path):
    for line in lines(path.read_text()):
        known = line in COMMANDS or line.startswith(tuple(ELSEWHERE))
        assert known, f"give it a row in SMOKE or ELSEWHERE: {line}"


def test_what_is_run_elsewhere_is():
    for reason in ELSEWHERE.values():
        for name in re.findall(r"tests/[\w/]+\.py|\.ci/run", reason):
            assert (ROOT / name).exists(), reason


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home folder with data and three runs in it, in which everything is done."""
    home = tmp_path_factory.mktemp("home")
    for root in (home / "data", home / "DIR"):
        official.write(
            root, "python archive", official.files_of("python archive", official.cifar10())
        )
    official.packed(home / "data", official.tiny_imagenet())
    for label, name in enumerate(("cat", "dog")):
        (home / "pets" / "train" / name).mkdir(parents=True)
        for i in range(10):
            image = Image.new("RGB", (40, 30 + i), (100 * label, 10 * i, 0))
            image.save(home / "pets" / "train" / name / f"{i}.jpg")
    Image.fromarray(load_dataset("digits").test.images[0, ..., 0]).save(home / "digit.png")
    with pytest.MonkeyPatch.context() as patch:
        settle(patch, home)
        typed("vix train --model vit --output runs/RUN")
        typed("vix train --output runs/OTHER")
        pets = "--dataset folder --data-dir ~/pets --img-size 16"
        typed(f"vix train --model vit {pets} --output runs/COLOUR")
    return home


def settle(patch, home):
    patch.chdir(home)
    patch.setenv("HOME", str(home))
    patch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    patch.setenv("TFDS_DATA_DIR", str(home / "data"))


@pytest.fixture
def at_home(home, monkeypatch):
    settle(monkeypatch, home)
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    yield home
    for name, value in before.items():
        jax.config.update(name, value)


def short(line):
    """The arguments of a line, with what makes it short."""
    for part, instead in REPLACED.items():
        line = line.replace(part, instead)
    flags = shlex.split(line)[1:] + SMOKE[command_of(line)].split()
    if "train" in flags and "hybrid" not in line and "modern" not in line:
        flags += ["--set", "patch_size=4"]  # a convolutional stem cuts no patches
    return flags


def typed(line):
    """Runs it in this process, or in one with as many devices as it asks for."""
    if "--mesh" not in line:
        assert main(short(line)) == 0
        return
    devices = "--xla_force_host_platform_device_count=8"
    environment = {**os.environ, "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {devices}"}
    command = [sys.executable, "-m", "vix_flax", *short(line)]
    subprocess.run(command, check=True, env=environment, timeout=900)


@pytest.mark.slow  # the whole README, in order
@pytest.mark.parametrize("line", [line for line in COMMANDS if line not in BY_HAND])
def test_command_runs(line, at_home):
    typed(line)


@pytest.mark.slow
def test_two_processes_by_hand_are_one_run(at_home):
    assert len(BY_HAND) == 2
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "vix_flax", *short(line.replace("HOST:PORT", address))]
        )
        for line in BY_HAND
    ]
    assert [process.wait(900) for process in started] == [0, 0]
    assert (at_home / "run" / "test.json").exists()


def headings(text):
    """The anchors of a page, as GitHub makes them."""
    text = re.sub(FENCED, "", text, flags=re.M | re.S)
    found = Counter()
    for title in re.findall(r"^#{1,6} +(.+?)[ #]*$", text, re.M):
        title = re.sub(r"!?\[([^]]*)\]\([^)]*\)", r"\1", title).lower()
        slug = re.sub(r"[^\w\- ]", "", title).replace(" ", "-")
        yield f"{slug}-{found[slug]}" if found[slug] else slug
        found[slug] += 1


def broken_links(path):
    """Links and pictures of a page that lead nowhere: to no file, or to no heading in it."""
    text = re.sub(FENCED, "", path.read_text(), flags=re.M | re.S)
    text = re.sub(r"`[^`\n]*`", "`code`", text)
    targets = re.findall(r"\]\(<?([^)>\s]+)>?(?:\s+\"[^\"]*\")?\)", text)
    targets += re.findall(r"^ *\[[^]]+\]: +(\S+)", text, re.M)
    targets += re.findall(r"(?:src|srcset|href)=\"([^\"\s]+)\"", text)
    for target in targets:
        if in_repository := re.search(r"//colab\.[^#]+/blob/[^/]+/([^#]+)", target):
            if not (ROOT / in_repository[1]).exists():
                yield target
        elif not re.match(r"[a-z]+:", target):
            name, _, anchor = target.partition("#")
            there = path.parent / name if name else path
            if not there.exists() or (anchor and anchor not in headings(there.read_text())):
                yield target


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_files_lead_somewhere(path):
    assert list(broken_links(path)) == []
    named = r"`((?:vix_flax|tests|examples|benchmarks|notebooks)/[\w./-]+)`"
    for target in re.findall(named, path.read_text()):
        assert (ROOT / target).exists() or "window" in target, target


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    (tmp_path / "other.md").write_text(
        "# One `code`, two!\n\n## Same\n\n## Same\n\n```\n# no\n```\n"
    )
    good = "[a](other.md#one-code-two) [b](other.md#same-1) ![c](<other.md>) [d](#here)\n\n# Here\n"
    bad = ["other.md#no", "other.md#same-2", "gone.png", "gone.md#same", "#there", "x.svg", "y.md"]
    links = "".join(f"![p]({target})\n" for target in bad[:5])
    page = tmp_path / "page.md"
    page.write_text(f'{good}\n{links}\n<img src="x.svg">\n[ref]: y.md\n')
    assert sorted(broken_links(page)) == sorted(bad)
