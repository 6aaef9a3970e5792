"""Runs side by side, finished or not, from what their folders say."""

import json

import pytest
from PIL import Image

from vix_flax.cli import main
from vix_flax.compare import History, labels


def run_in(folder, accuracies, model="vit", test=None, **fields):
    folder.mkdir(parents=True)
    config = {"model": model, "dataset": "digits", "model_fields": fields}
    (folder / "config.json").write_text(json.dumps({"config": config}))
    rows = [
        {"epoch": i, "seconds": 9.0 if i == 1 else 2.0, "val_loss": 1 - a, "val_accuracy": a}
        for i, a in enumerate(accuracies, 1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if test is not None:
        saved = {"test_accuracy": test, "test_loss": 1.0, "params": 12345}
        (folder / "test.json").write_text(json.dumps(saved))
    return folder


def test_the_best_epoch_and_the_usual_time(tmp_path):
    run = History.read(run_in(tmp_path / "a", [0.2, 0.8, 0.6], test=0.7))
    assert run.best("val_accuracy") == 0.8
    assert run.best("val_loss") == pytest.approx(0.2)
    assert run.best("val_top5") is None
    assert run.seconds_an_epoch == 2.0
    assert History.read(run_in(tmp_path / "b", [0.2])).seconds_an_epoch == 9.0


def test_runs_that_are_called_alike_get_their_folders_names(tmp_path):
    runs = [
        History.read(run_in(tmp_path / "a", [0.1])),
        History.read(run_in(tmp_path / "b", [0.1])),
        History.read(run_in(tmp_path / "c", [0.1], attention="nystrom")),
    ]
    assert labels(runs) == ["vit, a", "vit, b", "vit (nystrom)"]
    (tmp_path / "other").mkdir()
    other = History.read(run_in(tmp_path / "other" / "a", [0.1]))
    apart = [f"vit, {run.folder}" for run in (runs[0], other)]
    assert labels([*runs, other]) == [apart[0], "vit, b", "vit (nystrom)", apart[1]]


def test_the_command_prints_a_row_for_each_and_draws(tmp_path, capsys):
    finished = run_in(tmp_path / "a", [0.2, 0.8], test=0.75)
    running = run_in(tmp_path / "b", [0.3], model="vin")
    picture = tmp_path / "both.png"
    assert main(["compare", str(finished), str(running), "--output", str(picture)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[1].split() == ["vit", "digits", "12,345", "2", "80.00%", "75.00%", "2.00"]
    assert printed[2].split() == ["vin", "digits", "–", "1", "30.00%", "–", "9.00"]
    with Image.open(picture) as image:
        assert min(image.size) > 400


def test_runs_without_labels_are_compared_by_their_loss(result, tmp_path, capsys):
    labelled = str(result.folder)
    alone = run_in(tmp_path / "a", [0.5])
    row = {"epoch": 1, "seconds": 1.0, "val_loss": 0.25}
    (alone / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    assert main(["compare", labelled, str(alone), "--output", str(tmp_path / "x.png")]) == 0
    assert "loss 0.2500" in capsys.readouterr().out


def spoil(folder, name, text):
    path = folder / name
    path.unlink() if text is None else path.write_text(text)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config.json", None, "no config.json"),
        ("metrics.jsonl", None, "no metrics.jsonl"),
        ("metrics.jsonl", "", "has not finished an epoch yet"),
        ("metrics.jsonl", '{"epoch":', "cannot be read"),
        ("config.json", "{}", "cannot be read"),
        ("test.json", "", "cannot be read"),
    ],
)
def test_what_cannot_be_compared_is_one_line(tmp_path, capsys, name, text, message):
    folder = run_in(tmp_path / "a", [0.5], test=0.5)
    spoil(folder, name, text)
    assert main(["compare", str(folder), "--output", str(tmp_path / "x.png")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "x.png").exists()
