"""What turns measured numbers into tables and pictures is right; nothing is timed here."""

import importlib
import json
import math
import re
import runpy
import sys
from argparse import Namespace
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"
SCRIPTS = [
    "attention", "data", "epochs", "inference", "kernels", "scale", "startup", "swap", "tables",
    "train_step",
]  # fmt: skip
FIVE = ("vit", "vin", "vip", "vil", "fnet")


def side(milliseconds, megabytes):
    return {"milliseconds": milliseconds, "megabytes": megabytes}


@pytest.fixture
def module(monkeypatch):
    """A file of `benchmarks/`, as its neighbours import it."""
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module


@pytest.fixture
def tables(module, monkeypatch, tmp_path):
    """`tables`, with one result to read: ours takes half, 2, 1, 1, 1 times as long."""
    rows = {
        name: {"ours": side(time, 50), "torch": side(10, 100), "torch_compile": side(20, 25)}
        for name, time in zip(FIVE, (5, 20, 10, 10, 10), strict=True)
    }
    rows["vit"]["torch_sdpa"] = side(1234.5, 100)
    result = {"date": "2026-01-01", "machine": "none", "measured": {"train step": rows}}
    (tmp_path / "steps.json").write_text(json.dumps(result))
    (tmp_path / "other.json").write_text(json.dumps({"date": "2026-01-01"}))
    tables = module("tables")
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    return tables


def test_ratio_is_over_the_best_of_the_others(module):
    turns = module("turns")
    numbers = {"torch": side(4, 10), "ours": side(3, 30), "torch_compile": side(2, 20)}
    assert turns.ratio(numbers, "milliseconds") == 1.5
    assert turns.ratio(numbers, "megabytes") == 3
    assert math.isnan(turns.ratio({"ours": side(3, 30)}, "megabytes"))


def test_mean_is_geometric_and_of_all_that_are_named(module):
    turns = module("turns")
    rows = {str(time): {"ours": side(time, 1), "torch": side(1, 1)} for time in (1, 4, 16)}
    assert turns.mean_ratio(rows, "milliseconds", rows) == pytest.approx(4)
    assert turns.mean_ratio(rows, "milliseconds", ("1", "4")) == pytest.approx(2)
    assert math.isnan(turns.mean_ratio(rows, "milliseconds", ("1", "9")))


@pytest.mark.parametrize(("device", "starts"), [("cpu", 2), ("gpu", 1)])
def test_sides_take_turns(device, starts, module, tmp_path, capsys):
    script = tmp_path / "script.py"
    script.write_text(
        "import json, sys\n"
        f"sys.path.insert(0, {str(FOLDER)!r})\n"
        "import turns\n"
        "turns.TURN_SECONDS = 0\n"
        "spec = json.loads(sys.argv[2])\n"
        "note = lambda: open(spec['log'], 'a').write(spec['side'])\n"
        "turns.serve(lambda: None, lambda: note)\n"
    )
    log = tmp_path / "log"
    specs = {name: {"side": name, "log": str(log)} for name in "AB"}
    turns = module("turns")
    specs["C"] = {"side": "C", "log": str(tmp_path / "no folder" / "log")}
    how = Namespace(rounds=2, calls=2, malloc="pools", device=device, ahead=1)
    measured = turns.compare(str(script), {"title": {"row": specs}}, how)["title"]["row"]
    assert list(measured) == ["A", "B"]  # C failed, and that was said
    assert tuple(measured["A"]) == turns.UNITS
    assert "it failed: {'side': 'C'" in capsys.readouterr().err
    # To warm up (before, too, to fill the caches), two turns of two calls, two for the memory.
    calls, warm_up = log.read_text(), 2 * turns.WARM_UP
    for start in range(starts):
        assert sorted(calls[start * warm_up :][:warm_up]) == sorted("AB" * turns.WARM_UP)
    assert calls[starts * warm_up :] == "AABB" * 2 + "AABB"


def test_quick_calls_fill_a_turn(module, monkeypatch):
    turns = module("turns")
    monkeypatch.setattr(turns, "TURN_SECONDS", 10)
    monkeypatch.setattr(turns, "timed", lambda call: call())
    assert turns.turn(lambda: 4, calls=2) == [4, 4, 4]
    assert turns.turn(lambda: 20, calls=2) == [20, 20]


def test_table_has_times_and_ratios(tables):
    assert tables.saved_names() == ["steps"]
    header, rule, *lines = tables.saved_table("steps").splitlines()
    assert header == "| train step | `vit` | `vin` | `vip` | `vil` | `fnet` | mean of five |"
    assert rule.count("---:") == 6
    assert lines == [
        "| vix_flax, ms | 5 | 20 | 10 | 10 | 10 |  |",
        "| torch, ms | 10 | 10 | 10 | 10 | 10 |  |",
        "| torch, compiled, ms | 20 | 20 | 20 | 20 | 20 |  |",
        "| torch, its own attention function, ms | 1,230 |  |  |  |  |  |",
        "| **time, ours / the fastest of torch** | 0.50 | 2.00 | 1.00 | 1.00 | 1.00 | 1.00 |",
        "| memory, ours / the least of torch | 2.00 | 2.00 | 2.00 | 2.00 | 2.00 | 2.00 |",
    ]


def test_tables_are_put_between_markers(tables):
    text = "before\n<!-- results: steps -->\nold\n<!-- end -->\nafter\n"
    new = tables.filled(text)
    assert "old" not in new
    assert tables.saved_table("steps") in new
    assert new.startswith("before\n")
    assert new.endswith("<!-- end -->\nafter\n")
    assert tables.filled(new) == new


def test_what_bounds_a_step(module):
    kernels = module("kernels")
    row = {"model": "vit", "dtype": "float32", "milliseconds": 10, "flops": 2e9, "bytes": 1e9}
    row["kernels"] = {**dict.fromkeys(kernels.KINDS, 0), "products": 5, "copies": 1}
    result = {"batch": 2, "steps": [row], "peaks": {"float32": 1e12, "memory": 2e11}}
    *_, line = kernels.table(result).splitlines()
    assert line == "| `vit` | 10.0 | 20% | 50% | products 50%, between kernels 40% |"


def test_kernels_are_told_apart(module):
    kind_of = module("kernels").kind_of
    names = {
        "cudnn_generated_fort_native_sdpa_sm90_flash_bprop": "attention",
        "void cudnn::fusion::compute_dot_do_o_specialized<true, 64>": "attention",
        "sm90_xmma_wgrad_indexed_implicit_gemm_f32f32": "convolutions",
        "sm90_xmma_gemm_f32f32_tf32f32_f32_tn": "products",
        "nvjet_sm90_tst_64x64": "products",
        "regular_fft<32u>": "Fourier",
        "loop_convert_fusion": "elementwise",
        "input_convert_reduce_fusion": "reductions",
        "loop_transpose_fusion_22": "copies",
    }
    assert {name: kind_of(name) for name in names} == names


def test_pictures_are_small(tables, tmp_path):
    tables.plot("steps", tmp_path)
    for form in ("svg", "png"):
        assert 1000 < (tmp_path / f"steps.{form}").stat().st_size < 100_000


def test_both_sides_have_the_same_fields(module):
    peers = module("peers")
    args = peers.model_parser("What it is.").parse_args(["--patch-size", "4"])
    specs = peers.model_specs(args, batch=2)
    assert list(specs) == list(peers.PEERS)
    for name, sides in specs.items():
        assert ("torch_sdpa" in sides) == (name == "vit")
        assert len({json.dumps(spec["fields"]) for spec in sides.values()}) == 1
        model = peers.our_model(name, sides["ours"]["fields"])
        named = re.compile("dropout|dropout_rate|(emb|attention|layer)_dropout|stochastic_depth")
        rates = {field: rate for field, rate in vars(model).items() if named.fullmatch(field)}
        assert rates == dict.fromkeys(rates, 0) != {}


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_say_what_they_do(name, module, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    assert end.value.code == 0
    assert "usage" in capsys.readouterr().out
