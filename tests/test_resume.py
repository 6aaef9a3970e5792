"""Stopped anywhere and started again, a run is, bit for bit, the one it would have been."""

import dataclasses
import gc
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import types
from pathlib import Path

import filelock
import jax
import numpy as np
import psutil
import pytest
from short_run import CONFIG, SIZES

from vix_flax import trainer
from vix_flax.attention import ATTENTIONS
from vix_flax.launch import train
from vix_flax.run import Run
from vix_flax.trainer import Stopped
from vix_flax.training import StepPrograms, TrainConfig, loop

STEPS = 25  # an epoch of CONFIG
SLOW = pytest.mark.slow


def with_attention(name, **options):
    return dataclasses.replace(CONFIG, model_fields={**SIZES, "attention": name, **options})


OPTIONS = {
    "nystrom": {"num_landmarks": 2},
    "linformer": {"attention_options": {"k": 2}},
    "chunked": {"attention_options": {"query_chunk": 2, "key_chunk": 2}},
}
CASES = {name: with_attention(name, **OPTIONS.get(name, {})) for name in ATTENTIONS}
DROPPING = dataclasses.replace(CONFIG, model_fields={**SIZES, "dropout": 0.3}, crop_padding=1)
CASES["dropout"] = DROPPING
CASES["augmentation"] = dataclasses.replace(CONFIG, aa="trivial", reprob=0.3, mixup=0.2)
CASES["accumulation"] = dataclasses.replace(DROPPING, grad_accum_steps=5)
CASES["batchnorm"] = TrainConfig(
    model="cvt_cifar",
    model_fields=dict(s1_emb_dim=8, s2_emb_dim=8, s3_emb_dim=8, s1_heads=1, s2_heads=1, s3_heads=1,
                      s1_depth=1, s2_depth=1, s3_depth=1),
    epochs=2, batch_size=50, lr=1e-2,
)  # fmt: skip
CASES["mpp"] = dataclasses.replace(CONFIG, objective="mpp", model_ema=False)


def digest(folder):
    """Name → hash of every array in the newest checkpoint; and the metrics, but for times."""
    from orbax.checkpoint import CheckpointManager, args

    with CheckpointManager(folder / "checkpoint") as manager:
        step = manager.latest_step()
        items = args.Composite(training=args.StandardRestore(), weights=args.StandardRestore())
        tree = manager.restore(step, args=items)
    arrays = {"step": step}
    for path, leaf in jax.tree_util.tree_leaves_with_path(dict(tree)):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        arrays[jax.tree_util.keystr(path)] = hashlib.sha256(np.asarray(leaf).tobytes()).hexdigest()
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    for row in rows:
        del row["seconds"], row["images_per_second"], row["memory_gib"]
    return arrays, rows, json.loads((folder / "test.json").read_text())


def kill_after(folder, config, step):
    """Trains in another process that is killed with -9 after that many steps."""
    script = str(Path(__file__).with_name("killed.py"))
    config = json.dumps(dataclasses.asdict(config))
    done = subprocess.run([sys.executable, script, str(folder), str(step), config], check=False)
    assert done.returncode == -signal.SIGKILL


def stop_after(folder, config, step):
    """Trains until that step, as a signal would stop it."""
    taken = []
    with pytest.raises(Stopped):
        train(config, folder, on_step=lambda _: taken.append(1), stop=lambda: len(taken) >= step)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Name of a case → the folder of its run."""
    folders = {}

    def folder(name):
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp("whole") / "run"
            train(CASES[name], folders[name])
        return folders[name]

    return folder


@SLOW
@pytest.mark.parametrize("name", CASES)
def test_killed_between_checkpoints_and_started_again(name, uninterrupted, tmp_path):
    config = CASES[name]
    kill_after(tmp_path / "run", config, STEPS + 5)
    assert not (tmp_path / "run" / "test.json").exists()
    train(config, tmp_path / "run")
    assert digest(tmp_path / "run") == digest(uninterrupted(name))


@pytest.mark.parametrize(
    "step", [STEPS - 1, *(pytest.param(s, marks=SLOW) for s in (1, 7, STEPS, 37, 2 * STEPS - 1))]
)
def test_stopped_at_any_step_and_started_again(step, uninterrupted, tmp_path):
    config = DROPPING
    stop_after(tmp_path / "run", config, step)
    train(config, tmp_path / "run")
    assert digest(tmp_path / "run") == digest(uninterrupted("dropout"))


@SLOW
def test_stopped_again_and_again(uninterrupted, tmp_path):
    config = DROPPING
    for step in (3, 4, 20, 9):
        stop_after(tmp_path / "run", config, step)
    train(config, tmp_path / "run", stop=lambda: False)
    assert digest(tmp_path / "run") == digest(uninterrupted("dropout"))


@pytest.fixture(scope="module")
def stopped_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopped") / "run"
    stop_after(folder, DROPPING, STEPS + 3)
    return folder


@pytest.fixture
def stopped(stopped_once, tmp_path):
    """A run of two epochs that was stopped in its second; and its config."""
    shutil.copytree(stopped_once, tmp_path / "run")
    return tmp_path / "run", DROPPING


def newest(folder):
    return max((folder / "checkpoint").iterdir(), key=lambda path: int(path.name))


def truncate(folder):
    largest = max(newest(folder).rglob("*"), key=lambda p: p.stat().st_size * p.is_file())
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])


def remove_files(folder):
    for path in (newest(folder) / "training").rglob("*"):
        if path.is_file():
            path.unlink()


def remove_progress(folder):
    shutil.rmtree(newest(folder) / "progress")
    shutil.rmtree(newest(folder) / "weights")


@pytest.mark.parametrize(
    "damage", [truncate, *(pytest.param(f, marks=SLOW) for f in (remove_files, remove_progress))]
)
def test_a_damaged_checkpoint_is_left_for_the_one_before(damage, stopped, uninterrupted, capsys):
    folder, config = stopped
    damaged = newest(folder).name
    damage(folder)
    started = []
    train(config, folder, on_start=started.append)
    assert started[0].done == STEPS
    assert f"checkpoint {damaged} in {folder}/checkpoint is damaged" in capsys.readouterr().err
    assert digest(folder) == digest(uninterrupted("dropout"))


def test_no_checkpoint_can_be_read(stopped):
    folder, config = stopped
    for step in (folder / "checkpoint").iterdir():
        shutil.rmtree(step / "training")
    with pytest.raises(ValueError, match=r"cannot be restored"):
        train(config, folder)


@SLOW
def test_what_a_kill_leaves_of_a_checkpoint_is_not_read(stopped, uninterrupted):
    folder, config = stopped
    half = newest(folder)
    half.rename(half.with_name(f"{half.name}.orbax-checkpoint-tmp"))
    started = []
    train(config, folder, on_start=started.append)
    assert started[0].done == STEPS
    assert digest(folder) == digest(uninterrupted("dropout"))
    assert not list((folder / "checkpoint").glob("*tmp*"))


@SLOW
def test_metrics_that_were_cut_off_are_written_again(stopped, uninterrupted):
    folder, config = stopped
    (folder / "metrics.jsonl").write_text('{"epoch": 1, "st')
    train(config, folder)
    assert digest(folder) == digest(uninterrupted("dropout"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 0.5}, r"another config: lr=0\.5 \(was 0\.01\)"),
        ({"model_fields": {**SIZES, "dim": 32}}, r"dim=32 \(was 16\)"),
        ({"epochs": 9, "seed": 4}, r"epochs=9 \(was 2\), seed=4 \(was 0\)"),
    ],
)
def test_another_config_is_refused(change, message, stopped):
    folder, config = stopped
    with pytest.raises(ValueError, match=message):
        train(dataclasses.replace(config, **change), folder)


def test_fields_that_were_not_there_yet_are_no_difference(stopped):
    folder, config = stopped
    saved = json.loads((folder / "config.json").read_text())
    for name in ("deterministic", "layer_decay", "steps_at_once", "mesh", "fit"):
        del saved["config"][name]
    (folder / "config.json").write_text(json.dumps(saved))
    with pytest.raises(Stopped):
        train(config, folder, stop=lambda: True)


def test_other_classes_are_refused(stopped):
    folder, config = stopped
    saved = json.loads((folder / "config.json").read_text())
    saved["classes"] = saved["classes"][:7]
    (folder / "config.json").write_text(json.dumps(saved))
    with pytest.raises(ValueError, match="run on other data: the classes of now are not those"):
        train(config, folder)


@SLOW
def test_where_it_started_need_not_be_there_any_more(uninterrupted, tmp_path):
    shutil.copytree(uninterrupted("dropout"), tmp_path / "source")
    config = dataclasses.replace(DROPPING, init_from=str(tmp_path / "source"))
    stop_after(tmp_path / "run", config, STEPS + 3)
    (tmp_path / "source").rename(tmp_path / "moved")
    assert train(config, tmp_path / "run").val["epoch"] == 2


def test_a_finished_run_without_its_checkpoint_is_not_trained_anew(uninterrupted, tmp_path):
    shutil.copytree(uninterrupted("dropout"), tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoint")
    before = (tmp_path / "run" / "metrics.jsonl").read_text()
    with pytest.raises(ValueError, match="is finished, but its last checkpoint is gone"):
        train(DROPPING, tmp_path / "run")
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == before


def test_what_a_kill_leaves_of_the_config_is_written_again(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json.writing").write_text('{"conf')
    stop_after(tmp_path / "run", DROPPING, 1)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["config"]["epochs"] == 2


@SLOW
def test_a_run_may_go_on_by_another_loader(stopped, uninterrupted):
    folder, config = stopped
    train(dataclasses.replace(config, loader="stream"), folder)
    assert digest(folder) == digest(uninterrupted("dropout"))


def test_resuming_can_be_refused(stopped):
    with pytest.raises(ValueError, match="holds a run already"):
        train(stopped[1], stopped[0], resume=False)


def test_a_finished_run_is_reported_again(uninterrupted):
    folder = uninterrupted("dropout")
    before = digest(folder)
    steps = []
    result = train(DROPPING, folder, on_step=lambda _: steps.append(1))
    assert not steps
    assert result.test["accuracy"] == before[2]["test_accuracy"]
    assert digest(folder) == before


def test_one_process_at_a_time(tmp_path):
    (tmp_path / "run").mkdir()
    with (
        filelock.FileLock(tmp_path / "run" / ".lock"),
        pytest.raises(ValueError, match="is being trained in by another process"),
    ):
        train(CONFIG, tmp_path / "run")


def test_another_format_is_named(stopped):
    folder, config = stopped
    for path in (folder / "checkpoint").glob("*/progress/metadata"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "format": 7}))
    with pytest.raises(ValueError, match="has the format 7, and this version of vix_flax reads 1"):
        train(config, folder)
    shutil.rmtree(newest(folder) / "progress")
    with pytest.raises(ValueError, match="written before there was a format"):
        train(config, folder)


def test_the_best_is_the_best_on_validation_images(uninterrupted):
    folder = uninterrupted("dropout")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    scores = {row["step"]: row["val_accuracy"] for row in rows}
    best = max(scores, key=lambda step: (scores[step], step))
    kept = {int(path.name) for path in (folder / "checkpoint").iterdir()}
    assert kept == {best, max(scores)}
    assert Run.load(folder, best=True).evaluate("val")["accuracy"] == scores[best]


@SLOW
def test_a_clock_that_goes_backwards_changes_nothing(uninterrupted, tmp_path, monkeypatch):
    clock = iter(range(10**9, 0, -1))
    backwards = types.SimpleNamespace(perf_counter=lambda: next(clock))
    for module in (trainer, loop):
        monkeypatch.setattr(module, "time", backwards)
    config = DROPPING
    stop_after(tmp_path / "run", config, 30)
    train(config, tmp_path / "run")
    assert digest(tmp_path / "run") == digest(uninterrupted("dropout"))


@SLOW
def test_a_disk_that_is_full_stops_cleanly(stopped, uninterrupted, monkeypatch):
    folder, config = stopped
    whole = lambda: sorted(p.name for p in (folder / "checkpoint").iterdir() if p.name.isdigit())
    before = whole()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("orbax.checkpoint.StandardCheckpointHandler.async_save", full)
        with pytest.raises(OSError, match=r"no checkpoint could be written.*No space left"):
            train(config, folder)
    assert whole() == before  # orbax may leave what it has begun, for the next start to remove
    train(config, folder)
    assert digest(folder) == digest(uninterrupted("dropout"))


@pytest.mark.parametrize("sent", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=SLOW)])
def test_a_signal_stops_after_the_step_and_says_how_to_go_on(sent, tmp_path):
    flags = [f"--{name}={value}" for name, value in (("epochs", 50), ("output", tmp_path / "run"))]
    sizes = [f"--set={name}={value}" for name, value in SIZES.items()]
    command = [sys.executable, "-m", "vix_flax", "train", "--model=vit", *flags, *sizes]
    process = subprocess.Popen(
        [*command, "--no-compilation-cache"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env={**os.environ, "COLUMNS": "500"},
    )  # fmt: skip
    for line in process.stdout:
        if line.startswith("epoch   1/"):
            process.send_signal(sent)
            break
    said, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    assert f"to go on: vix train --resume {tmp_path}/run" in said
    assert "stopping after this step" in errors
    steps = [int(path.name) for path in (tmp_path / "run" / "checkpoint").iterdir()]
    assert max(steps) >= 39


def test_a_loss_that_is_not_finite_names_the_step(tmp_path, monkeypatch):
    original = trainer.fit

    def fit(state, epochs, train_batches, *others, **given):
        def poisoned(epoch):
            for i, batch in enumerate(train_batches(epoch)):
                if epoch == 1 and i == 4:
                    batch = {**batch, "image": np.full(batch["image"].shape, np.nan, np.float32)}
                yield batch

        return original(state, epochs, poisoned, *others, **given)

    monkeypatch.setattr(trainer, "fit", fit)
    for stop_at in (10**9, STEPS + 7):  # even if it is stopped before anyone has looked
        taken = []
        step, stop = lambda _: taken.append(1), lambda: len(taken) >= stop_at  # noqa: B023
        message = rf"step {STEPS + 5}: the loss is nan.*first grad"
        with pytest.raises(FloatingPointError, match=message):
            train(CONFIG, tmp_path / "run", on_step=step, stop=stop)
        assert newest(tmp_path / "run").name == str(STEPS)  # the last good one
    monkeypatch.undo()
    assert train(CONFIG, tmp_path / "run").val["epoch"] == 2


def test_a_step_transfers_nothing(tmp_path, monkeypatch):
    original = StepPrograms.__call__

    def guarded(*given):
        with jax.transfer_guard("disallow"):
            return original(*given)

    monkeypatch.setattr(StepPrograms, "__call__", guarded)
    for loader in ("memory", "device"):
        config = dataclasses.replace(DROPPING, loader=loader, epochs=1)
        train(config, tmp_path / loader)
    with jax.transfer_guard("disallow"), pytest.raises(Exception, match="Disallowed"):
        jax.jit(lambda x: x + 1)(np.ones(3))  # as a batch that was not put there would be


@SLOW
def test_steps_let_memory_not_grow(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer.Checkpoints, "save", lambda *_, **__: None)  # orbax keeps a little
    sizes, process = [], psutil.Process()

    def look(row):
        if row["step"] % 500 == 0:
            gc.collect()
            sizes.append(process.memory_info().rss / 2**20)

    train(dataclasses.replace(DROPPING, epochs=100), tmp_path / "run", on_epoch=look)
    assert sizes[-1] - sizes[0] < 4, sizes  # MiB, from step 500 to step 2,500
