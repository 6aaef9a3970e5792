"""Others who follow a run get each of its rows, and a trace that can be opened."""

import dataclasses
import gzip
import json
import struct
import sys
import types

import pytest
from short_run import CONFIG
from tensorboardX.proto.event_pb2 import Event

from vix_flax.launch import train
from vix_flax.trainer import Started
from vix_flax.training.mesh import make_mesh
from vix_flax.watchers import Profile, TensorBoard, WandB, trace_of

ROWS = [{"epoch": i, "step": 5 * i, "val_loss": 1 / i} for i in (1, 2)]


def started(folder, done=0):
    return Started(folder, None, 7, 5, done, "memory", make_mesh())


def logged(folder):
    """(step, name) → value of all event files, and the steps from which older ones are hidden."""
    values, purged = {}, []
    for path in sorted((folder / "tensorboard").iterdir(), key=lambda path: path.stat().st_mtime):
        data, start = path.read_bytes(), 0
        while start < len(data):  # length, its checksum, the event, its checksum
            (length,) = struct.unpack("<Q", data[start : start + 8])
            event = Event.FromString(data[start + 12 : start + 12 + length])
            start += 16 + length
            if event.session_log.status:
                purged.append(event.step)
            values |= {(event.step, v.tag): v.simple_value for v in event.summary.value}
    return values, purged


def test_tensorboard_gets_every_row(tmp_path):
    with TensorBoard() as watcher:
        watcher.start(started(tmp_path))
        for row in ROWS:
            watcher.epoch(row)
    values, _ = logged(tmp_path)
    for row in ROWS:
        for name, value in row.items():
            assert values[row["step"], name] == pytest.approx(value)


def test_tensorboard_forgets_what_a_killed_process_has_logged(tmp_path):
    with TensorBoard() as watcher:
        watcher.start(started(tmp_path))
        watcher.epoch(ROWS[0])
    with TensorBoard() as watcher:
        watcher.start(started(tmp_path, done=3))
    assert 4 in logged(tmp_path)[1]


def test_wandb_gets_every_row_on_one_page(tmp_path, monkeypatch):
    opened, rows, finished = [], [], []
    run = types.SimpleNamespace(
        log=lambda row, step: rows.append((step, row)), finish=lambda: finished.append(1)
    )
    init = lambda **given: opened.append(given) or run
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    for _ in range(2):
        with WandB(CONFIG) as watcher:
            watcher.start(started(tmp_path))
            watcher.epoch(ROWS[0])
    first, second = opened
    assert first["id"] == second["id"]
    assert first["resume"] == "allow"
    assert first["config"]["lr"] == CONFIG.lr
    assert first["config"]["params"] == 7
    assert rows == [(5, ROWS[0])] * 2
    assert len(finished) == 2


@pytest.mark.parametrize(
    ("module", "watcher"), [("tensorboardX", TensorBoard), ("wandb", lambda: WandB(CONFIG))]
)
def test_what_is_not_installed_is_named(module, watcher, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=f"pip install {module}"):
        watcher()


def test_a_trace_of_ten_steps(tmp_path):
    config = dataclasses.replace(CONFIG, epochs=1)
    with Profile() as profile:
        train(config, tmp_path / "run", on_start=profile.start, on_step=profile.step)
    trace = json.loads(gzip.decompress(trace_of(tmp_path / "run").read_bytes()))
    names = [event.get("name", "") for event in trace["traceEvents"]]
    assert sum("train_step" in name for name in names) >= 10


def test_a_run_that_is_shorter_leaves_a_trace_too(tmp_path):
    with Profile() as profile:
        profile.start(started(tmp_path))
        for _ in range(Profile.FIRST):
            profile.step(1)
    assert trace_of(tmp_path)
    assert trace_of(tmp_path / "nothing") is None
