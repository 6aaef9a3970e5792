"""A config becomes a folder that says what happened; mistakes are found before it is written."""

import dataclasses
import json
import logging
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from short_run import CONFIG, SIZES

import vix_flax as vix
from vix_flax import trainer
from vix_flax.data import LOADERS, load_dataset
from vix_flax.launch import new_folder, resolve, train
from vix_flax.run import Run
from vix_flax.training import TrainConfig


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


def test_hooks_see_the_start_every_step_and_every_epoch(trained):
    result, started, steps, epochs = trained
    (start,) = started
    assert (start.folder, start.params, start.done) == (result.folder, result.params, 0)
    assert isinstance(start.model, vix.ViT)
    assert start.steps == 1259 // 50
    assert start.loader in LOADERS
    assert len(steps) == 2 * start.steps
    assert [row["epoch"] for row in epochs] == [1, 2]
    assert result.val == epochs[-1]


def test_metrics_have_a_row_for_every_epoch(trained):
    result, *_, epochs = trained
    lines = (result.folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == epochs
    assert epochs[0]["lr"] > epochs[1]["lr"] > 0


def test_the_config_is_saved_with_what_the_data_decided(result):
    saved = json.loads((result.folder / "config.json").read_text())
    fields = saved["config"]["model_fields"]
    assert (fields["image_size"], fields["channels"], fields["num_classes"]) == ([8, 8], 1, 10)
    assert saved["config"]["lr"] == CONFIG.lr
    assert saved["image_shape"] == [8, 8, 1]
    assert saved["classes"] == list("0123456789")
    assert saved["versions"] == {"vix_flax": vix.__version__, "jax": jax.__version__}


def test_the_test_accuracy_is_saved(result):
    saved = json.loads((result.folder / "test.json").read_text())
    assert saved["test_accuracy"] == result.test["accuracy"]
    assert saved["test_loss"] == result.test["loss"]
    assert saved["params"] == result.params


@pytest.mark.parametrize("name", ["curves.png", "confusion.png"])
def test_pictures_are_drawn(result, name):
    with Image.open(result.folder / name) as image:
        assert min(image.size) > 300


@pytest.mark.parametrize("loader", LOADERS)
def test_every_loader_gives_the_same_run(trained, tmp_path, loader):
    *_, epochs = trained
    rows = []
    train(changed(loader=loader), tmp_path, on_epoch=rows.append)
    for row, expected in zip(rows, epochs, strict=True):
        for name in row.keys() - {"seconds", "images_per_second", "memory_gib"}:
            assert row[name] == expected[name], name


def test_it_learns_something(result):
    assert result.test["accuracy"] > 0.2
    assert result.test["confusion"].sum() == 359


def test_what_was_finished_before_an_interrupt_is_kept(tmp_path, monkeypatch):
    def fit(state, *_, **__):
        yield state, {"epoch": 1, "step": 6, "val_loss": 0.5}
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "fit", fit)
    with pytest.raises(KeyboardInterrupt):
        train(CONFIG, tmp_path / "run")
    (line,) = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["epoch"] == 1
    assert (tmp_path / "run" / "config.json").exists()
    assert not (tmp_path / "run" / "test.json").exists()


def test_without_an_output_every_run_has_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trainer, "fit", lambda *_, **__: 1 / 0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            train(CONFIG)
    assert len(list((tmp_path / "runs").glob("*-vit-digits*"))) == 2


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("keep me")
    with pytest.raises(ValueError, match=r"no run's folder and not empty: it has thesis\.tex"):
        train(CONFIG, tmp_path)


def test_two_runs_of_the_same_second_have_their_own_folders(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "strftime", lambda form: "20210704-120000")
    folders = [new_folder(tmp_path, "vin-digits") for _ in range(12)]
    assert len(set(folders)) == 12
    assert all(folder.is_dir() and not any(folder.iterdir()) for folder in folders)
    assert all("vin-digits" in folder.name for folder in folders)


def test_the_parent_of_the_folders_is_made(tmp_path):
    assert new_folder(tmp_path / "a" / "b", "x").parent == tmp_path / "a" / "b"


@pytest.mark.parametrize("below", ["", "runs", "runs/more"])
def test_an_output_that_is_a_file_is_refused(tmp_path, below):
    (tmp_path / "file").write_text("keep me")
    with pytest.raises(ValueError, match=r"output=.*file"):
        new_folder(tmp_path / "file" / below, "x")
    assert (tmp_path / "file").read_text() == "keep me"


def test_an_output_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    def read_only(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", read_only)
    with pytest.raises(ValueError, match=r"run' cannot be written: Read-only file system"):
        train(CONFIG, tmp_path / "run")


def changed(**fields):
    return dataclasses.replace(CONFIG, **fields)


def test_this_way_of_counting_sees_a_compilation(caplog):
    assert compilations(caplog, lambda: jax.jit(lambda x: x + 1)(np.ones(3)))


def compilations(caplog, call):
    caplog.clear()
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        call()
    return [record for record in caplog.records if "Compiling" in record.getMessage()]


@pytest.mark.parametrize(
    ("config", "output", "message"),
    [
        (CONFIG, "file/runs", "output"),
        (changed(model="vitt"), "runs", "'vit'"),
        (changed(dataset="digit"), "runs", "'digits'"),
        (changed(dataset="cifar10"), "runs", "vix data prepare cifar10"),
        (changed(data_dir="somewhere"), "runs", "somewhere"),
        (changed(model_fields={"dimm": 8}), "runs", "'dimm'.*'dim'"),
        (changed(model_fields={"patch_size": 3}), "runs", "patch_size"),
        (changed(model_fields=SIZES | {"image_size": 16}), "runs", r"\(16, 16\)|16, 16"),
        (changed(model_fields=SIZES | {"channels": 3}), "runs", "channels=1"),
        (changed(model_fields=SIZES | {"num_classes": 9}), "runs", "num_classes=9"),
    ],
)
def test_a_mistake_is_found_before_anything_is_written_or_compiled(
    tmp_path, caplog, config, output, message
):
    (tmp_path / "file").write_text("")

    def call():
        with pytest.raises(ValueError, match=message):
            train(config, tmp_path / output)

    assert not compilations(caplog, call)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_fields_that_the_data_decides_are_filled_in(digits):
    config, model = resolve(CONFIG, digits)
    assert (config.model_fields["image_size"], config.model_fields["channels"]) == ((8, 8), 1)
    assert (model.image_size, model.channels, model.num_classes) == ((8, 8), 1, 10)
    assert model.dim == 16
    assert "image_size" not in CONFIG.model_fields


def test_only_fields_that_the_model_has_are_filled_in(digits):
    config, model = resolve(changed(model="fnet2d", model_fields={"dim": 8, "depth": 1}), digits)
    assert "image_size" not in config.model_fields
    assert (model.channels, model.dim) == (1, 8)


def test_the_data_may_be_any_that_is_a_dataset(digits):
    more = dataclasses.replace(digits, classes=tuple("0123456789ab"))
    assert resolve(CONFIG, more)[1].num_classes == 12


def continued(result, output, **changes):
    """One more epoch from the trained run; the result and the first row of metrics."""
    fields = dict(epochs=1, lr=1e-6, model_ema=False, **changes)
    return train(dataclasses.replace(CONFIG, **fields), output)


def test_a_run_starts_from_another(result, tmp_path):
    again = continued(result, tmp_path, init_from=str(result.folder))
    assert abs(again.test["accuracy"] - result.test["accuracy"]) < 0.02


def test_a_run_with_another_attention_and_its_own_teacher(result, tmp_path):
    fields = {**SIZES, "attention": "linformer", "attention_options": {"k": 5}}
    swapped = continued(
        result, tmp_path, model_fields=fields, swap=str(result.folder), teacher="self"
    )
    # Five tokens and five rows: the new attention is the old one.
    assert abs(swapped.test["accuracy"] - result.test["accuracy"]) < 0.02
    model = Run.load(swapped.folder).model
    assert model.attention is vix.Linformer
    assert dict(model.attention_options) == {"k": 5}


def test_another_model_learns_from_a_run(result, tmp_path):
    student = TrainConfig(
        model="vimea", model_fields=SIZES, epochs=1, teacher=str(result.folder), distill="hard",
        distill_alpha=1.0,
    )  # fmt: skip
    assert np.isfinite(train(student, tmp_path).val["train_loss"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(init_from="nowhere"), "nowhere is no run"),
        (dict(swap="nowhere"), "nowhere is no run"),
        (dict(teacher="nowhere"), "nowhere is no run"),
        (dict(teacher="self"), "'self' needs swap"),
        (dict(init_from="a", swap="b"), "give one of them"),
        (dict(distill="medium"), "distill='medium' is unknown"),
        (dict(distill_alpha=2.0), "must be from 0 to 1"),
    ],
)
def test_nothing_is_written_when_the_start_is_no_good(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        train(dataclasses.replace(CONFIG, **changes), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
