"""The `vix` command: what it prints, what it leaves, and one line for every mistake."""

import contextlib
import io
import json
import re
import subprocess
import sys
import types
from pathlib import Path

import jax
import pytest
from PIL import Image

import vix_flax as vix
from vix_flax import launch
from vix_flax.attention import ATTENTIONS
from vix_flax.cli import main
from vix_flax.data import DATASETS, load_dataset
from vix_flax.recipes import RECIPES
from vix_flax.run import Run
from vix_flax.training import TrainConfig

NO_CACHE = "--no-compilation-cache"
TINY = [
    "--set", "depth=1", "--set", "dim=16", "--set", "heads=1", "--set", "dim_head=8",
    "--set", "mlp_dim=16", "--set", "patch_size=4",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a run made by `vix train`, and what the command printed."""
    output = tmp_path_factory.mktemp("cli") / "runs"
    argv = ["train", "--model", "vit", "--epochs", "1", "--warmup-epochs", "0", "--seed", "3"]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main([*argv, "--lr", "0.01", "--output", str(output), NO_CACHE, *TINY]) == 0
    return output, printed.getvalue()


def test_the_warm_up_keeps_its_share_of_a_shorter_run(monkeypatch):
    configs = []
    monkeypatch.setattr("vix_flax.launch.train", lambda config, *_: configs.append(config) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["train", "--epochs", "1", NO_CACHE])
    recipe = RECIPES["digits"]
    assert configs[0].warmup_epochs == recipe.warmup_epochs / recipe.epochs


def test_file_names_are_printed_as_they_are(trained, tmp_path, capsys):
    name = str(tmp_path / "a[b][red]y.png")
    Image.new("L", (8, 8)).save(name)
    assert main(["predict", str(trained[0]), name, NO_CACHE]) == 0
    assert name in capsys.readouterr().out


@pytest.fixture
def compilation_cache():
    """Puts jax's settings of the compilation cache back."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def names_in(text):
    return [line.split()[0] for line in text.splitlines()]


def test_list_names_every_model(capsys):
    assert main(["list"]) == 0
    assert set(vix.list_models()) <= set(names_in(capsys.readouterr().out))


def test_list_takes_a_pattern(capsys):
    assert main(["list", "hybrid_*_rope"]) == 0
    printed = capsys.readouterr().out
    assert "hybrid_vin_rope" in names_in(printed)
    assert not {"vin_rope", "hybrid_vin"} & set(names_in(printed))


def test_summary_says_what_a_model_has(capsys):
    assert main(["summary", "vit", "--set", "image_size=8", *TINY]) == 0
    model = vix.create_model(
        "vit", image_size=8, patch_size=4, dim=16, depth=1, heads=1, dim_head=8, mlp_dim=16
    )
    variables = jax.eval_shape(model.init, jax.random.key(0), jax.numpy.zeros((1, 8, 8, 3)))
    printed = capsys.readouterr().out
    assert f"{vix.count_params(variables):,}" in printed
    assert "blocks_0" in printed


def test_the_grid_is_a_row_for_each_model_and_a_column_for_each_attention(capsys):
    assert main(["list", "cr*", "--grid"]) == 0
    heading, *rows = capsys.readouterr().out.splitlines()
    assert heading.split() == list(ATTENTIONS)
    assert [row.split()[0] for row in rows[:4]] == vix.list_models("cr*")
    for row in rows[:2]:  # CrossViT has no bias that could be left out
        assert row.split()[1:] == ["✓"] * len(ATTENTIONS)


def test_remarks_of_the_grid_are_numbered_and_told_once(capsys):
    assert main(["list", "[lf][en]*[tn]*", "--grid"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = vix.list_models("[lf][en]*[tn]*")
    assert {"levit", "levit_cifar", "levin", "fnet", "fnet2d"} == set(names)
    rows = {line.split()[0]: line.split()[1:] for line in lines[1 : 1 + len(names)]}
    remarks = dict(line.split("  ", 1) for line in lines[1 + len(names) :])
    assert remarks == {
        "1": "Fourier does not attend; give mixer='self_attention', too",
        "2": "it does not attend",
        "3": "this attention has no scores to add to: LeViT's bias for offsets is left out",
    }
    assert rows["fnet"] == ["–", "1"] * len(ATTENTIONS)
    assert rows["fnet2d"] == ["–", "2"] * len(ATTENTIONS)
    assert rows["levin"] == ["✓"] * len(ATTENTIONS)
    scores = [getattr(core, "takes_bias", False) for core in ATTENTIONS.values()]
    cells = " ".join("✓" if has else "✓ 3" for has in scores)
    assert " ".join(rows["levit"]) == " ".join(rows["levit_cifar"]) == cells


def test_every_cell_of_the_grid_is_below_its_attention(capsys):
    assert main(["list", "levit", "--grid"]) == 0
    heading, row, *_ = capsys.readouterr().out.splitlines()
    starts = [heading.index(f" {name}") + 1 for name in ATTENTIONS]
    assert [row[start] for start in starts] == ["✓"] * len(ATTENTIONS)


@pytest.mark.parametrize(("attention", "notes"), [("linear", 1), ("softmax", 0)])
def test_summary_notes_what_is_left_out(capsys, attention, notes):
    fields = ["image_size=16", "depth=1", "dim=16", f"attention={attention}"]
    assert main(["summary", "levit_cifar", *(f"--set={field}" for field in fields)]) == 0
    printed = capsys.readouterr().out.splitlines()
    told = [line for line in printed if line.startswith("Note: ")]
    left_out = "this attention has no scores to add to: LeViT's bias for offsets is left out"
    assert told == [f"Note: {left_out}."] * notes
    assert printed[-1] == told[-1] if notes else printed[-1].startswith("Outputs are")


def test_train_reports_the_epoch_the_accuracy_and_the_folder(trained):
    folder, printed = trained
    accuracy = json.loads((folder / "test.json").read_text())["test_accuracy"]
    assert "1/1" in printed
    assert f"{accuracy:.2%}" in printed
    assert str(folder) in printed.replace("\n", "")


def test_train_leaves_a_run(trained):
    folder, _ = trained
    names = {path.name for path in folder.iterdir()} - {".lock"}
    pictures = {"curves.png", "confusion.png"}
    assert names == {"config.json", "metrics.jsonl", "checkpoint", "test.json", *pictures}


def test_training_without_labels_says_how_to_go_on(tmp_path, capsys):
    argv = ["--model", "vit", "--epochs", "1", "--objective", "mpp", "--set", "mask_prob=0.4"]
    folder = tmp_path / "run"
    assert main(["train", *argv, "--output", str(folder), NO_CACHE, *TINY]) == 0
    printed = capsys.readouterr().out
    assert "test loss" in printed
    assert "accuracy" not in printed
    assert f"vix train --init-from {folder}" in printed.replace("\n", " ")
    saved = json.loads((folder / "config.json").read_text())["config"]
    assert saved["objective_options"] == {"mask_prob": 0.4}
    assert main(["eval", str(folder), NO_CACHE]) == 2
    assert "without labels" in capsys.readouterr().err


def test_train_saves_the_recipe_as_changed_by_flags(trained):
    folder, _ = trained
    config = json.loads((folder / "config.json").read_text())["config"]
    assert (config["model"], config["epochs"], config["lr"], config["seed"]) == ("vit", 1, 0.01, 3)
    assert config["model_fields"]["dim"] == 16
    assert config["smoothing"] == RECIPES["digits"].smoothing


def test_eval_gives_the_accuracy_that_training_reported(trained, capsys):
    folder, _ = trained
    assert main(["eval", str(folder), NO_CACHE]) == 0
    accuracy = json.loads((folder / "test.json").read_text())["test_accuracy"]
    printed = capsys.readouterr().out
    assert f"{accuracy:.2%}" in printed
    assert "359" in printed


def test_eval_of_another_split(trained, capsys):
    folder, _ = trained
    assert main(["eval", str(folder), "--split", "val", NO_CACHE]) == 0
    row = json.loads((folder / "metrics.jsonl").read_text())
    assert f"{row['val_accuracy']:.2%}" in capsys.readouterr().out


@pytest.fixture
def pictures(tmp_path):
    images = load_dataset("digits").test.images
    paths = [tmp_path / "one.png", tmp_path / "two.png"]
    for path, image in zip(paths, images, strict=False):
        Image.fromarray(image[..., 0]).save(path)
    return [str(path) for path in paths]


def predictions(printed):
    """Path → [(class, percent), …] of each printed line."""
    lines = dict(line.rsplit(": ", 1) for line in printed.splitlines())
    return {path: re.findall(r"(\d) +(\d+\.\d+)%", text) for path, text in lines.items()}


def test_eval_writes_json_with_every_class(trained, tmp_path, capsys):
    folder, _ = trained
    path = tmp_path / "eval.json"
    assert main(["eval", str(folder), "--best", "--json", str(path), NO_CACHE]) == 0
    assert "hardest classes: " in capsys.readouterr().out
    saved = json.loads(path.read_text())
    confusion = saved["confusion"]
    assert (saved["dataset"], saved["split"], saved["count"]) == ("digits", "test", 359)
    assert saved["top5"] >= saved["accuracy"]
    assert sum(confusion[i][i] for i in range(10)) / 359 == pytest.approx(saved["accuracy"])
    assert list(saved["per_class"]) == [str(i) for i in range(10)]
    assert saved["per_class"]["3"] == pytest.approx(confusion[3][3] / sum(confusion[3]))


def test_eval_on_other_classes_is_one_line(trained, tmp_path, capsys):
    for label in "ab":
        (tmp_path / "train" / label).mkdir(parents=True)
        for i in range(5):
            Image.new("RGB", (8, 8)).save(tmp_path / "train" / label / f"{i}.png")
    flags = ["--dataset", "folder", "--data-dir", str(tmp_path), NO_CACHE]
    assert "folder has 2 classes" in error_of(capsys, ["eval", str(trained[0]), *flags])


@pytest.mark.parametrize(
    ("flags", "field", "value"),
    [
        (["--recipe", "vix_cifar10"], "sched", "constant"),
        (["--recipe", "vix_cifar10", "--model", "vil"], "batch_size", 256),
        (["--recipe", "modern_cifar10", "--dataset", "folder"], "dataset", "folder"),
        (["--recipe", "modern_cifar10"], "model", "hybrid_vin"),
        (["--grad-accum-steps", "4"], "grad_accum_steps", 4),
    ],
)
def test_recipes_by_name(monkeypatch, flags, field, value):
    assert getattr(config_of(monkeypatch, *flags), field) == value


def test_a_recipe_is_no_data_set(capsys):
    assert "unknown dataset 'modern_cifar10'" in error_of(
        capsys, ["train", "--dataset", "modern_cifar10", NO_CACHE]
    )
    assert "unknown recipe 'modrn_cifar10'; did you mean 'modern_cifar10'" in error_of(
        capsys, ["train", "--recipe", "modrn_cifar10", NO_CACHE]
    )


def test_predict_gives_the_most_probable_classes_first(trained, pictures, capsys):
    assert main(["predict", str(trained[0]), *pictures, NO_CACHE]) == 0
    found = predictions(capsys.readouterr().out)
    assert list(found) == pictures
    for best in found.values():
        shares = [float(share) for _, share in best]
        assert len(shares) == 3
        assert shares == sorted(shares, reverse=True)


def test_predict_gives_as_many_classes_as_wanted(trained, pictures, capsys):
    assert main(["predict", str(trained[0]), pictures[0], "--top-k", "10", NO_CACHE]) == 0
    (best,) = predictions(capsys.readouterr().out).values()
    assert sorted(digit for digit, _ in best) == list("0123456789")
    assert sum(float(share) for _, share in best) == pytest.approx(100, abs=1)


def test_the_compilation_cache_is_left_alone_on_request(trained, compilation_cache):
    jax.config.update("jax_compilation_cache_dir", "/untouched")
    assert main(["eval", str(trained[0]), NO_CACHE]) == 0
    assert jax.config.jax_compilation_cache_dir == "/untouched"


def test_the_compilation_cache_is_in_the_users_cache_folder(
    trained, compilation_cache, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert main(["eval", str(trained[0])]) == 0
    folder = Path(jax.config.jax_compilation_cache_dir)
    assert folder.is_relative_to(tmp_path)
    assert folder.is_dir()


def test_without_a_place_for_the_cache_everything_still_works(
    trained, compilation_cache, tmp_path, monkeypatch
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert main(["eval", str(trained[0])]) == 0


def config_of(monkeypatch, *flags):
    """The TrainConfig that `vix train` would train with these flags."""
    configs = []

    def train(config, *_):
        configs.append(config)
        raise KeyboardInterrupt

    monkeypatch.setattr(launch, "train", train)
    assert main(["train", *flags, NO_CACHE]) == 130
    return configs[0]


def test_an_interrupt_has_its_own_exit_code_and_no_traceback(monkeypatch, capsys):
    config_of(monkeypatch)
    assert capsys.readouterr().err.count("\n") == 1


def test_without_flags_the_recipe_for_digits_is_trained(monkeypatch):
    assert config_of(monkeypatch) == RECIPES["digits"]


@pytest.mark.parametrize(
    ("flags", "field", "value"),
    [
        (["-b", "32"], "batch_size", 32),
        (["--batch-size", "32"], "batch_size", 32),
        (["--aa", "trivial"], "aa", "trivial"),
        (["--mixup", "0.2"], "mixup", 0.2),
        (["--set", "min_crop=0.5"], "min_crop", 0.5),
        (["--img-size", "9"], "img_size", 9),
        (["--opt", "lion"], "opt", "lion"),
        (["--sched", "constant"], "sched", "constant"),
        (["--min-lr", "1e-6"], "min_lr", 1e-6),
        (["--weight-decay", "0"], "weight_decay", 0),
        (["--clip-grad", "1"], "clip_grad", 1),
        (["--smoothing", "0"], "smoothing", 0),
        (["--model-ema"], "model_ema", True),
        (["--model-ema-decay", "0.9"], "model_ema_decay", 0.9),
        (["--set", "crop_padding=2"], "crop_padding", 2),
        (["--set", "flip=true"], "flip", True),
        (["--set", "clip_grad=none"], "clip_grad", None),
        (["--dataset", "cifar10", "--data-dir", "/d"], "data_dir", "/d"),
        (["--dataset", "cifar10"], "lr", RECIPES["cifar10"].lr),
    ],
)
def test_a_flag_sets_its_field(monkeypatch, flags, field, value):
    assert getattr(config_of(monkeypatch, *flags), field) == value


@pytest.mark.parametrize(
    ("flags", "field", "value"),
    [
        (["--drop", "0.3"], "dropout", 0.3),
        (["--num-classes", "7"], "num_classes", 7),
        (["--set", "pool=mean"], "pool", "mean"),
        (["--set", "image_size=(8, 8)"], "image_size", (8, 8)),
        (["--set", "dim=8", "--set", "dim=24"], "dim", 24),
        (["--set", "qkv_bias=True"], "qkv_bias", True),
    ],
)
def test_a_flag_sets_a_field_of_the_model(monkeypatch, flags, field, value):
    assert config_of(monkeypatch, *flags).model_fields[field] == value


def error_of(capsys, argv):
    """What `vix` says on stderr about a mistake: one line, and exit code 2."""
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("vix: error:")
    assert error.endswith("\n")
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["list", "hybridvit*"], ["hybridvit*"]),
        (["list", "levitt*", "--grid"], ["levitt*"]),
        (["summary", "vitt"], ["'vitt'", "'vit'"]),
        (["summary", "vit", "--set", "dimm=3"], ["'dimm'", "'dim'"]),
        (["summary", "vit", "--set", "dim"], ["'dim'", "="]),
        (["summary", "vit", "--set", "=3"], ["'=3'"]),
        (["summary", "vit", "--set", "dim=-1"], ["dim", "-1"]),
        (["summary", "vit", "--set", "dim=many"], ["dim", "'many'"]),
        (["summary", "vit", "--set", "dropout=abc"], ["dropout", "abc"]),
        (["summary", "vit", "--set", "attention_options=3"], ["attention_options", "3"]),
        (["summary", "vin", "--set", "num_landmarks=x"], ["num_landmarks", "x"]),
        (["summary", "vit", "--set", "dtype=foo"], ["dtype", "foo"]),
        (["summary", "vit", "--depth", "-1"], ["--depth", "-1"]),
        (["summary", "vit", "--set", "attention=nystrm"], ["'nystrm'", "'nystrom'"]),
        (["summary", "vit", "--set", "patch_size=5"], ["patch_size", "5"]),
        (["eval", "/no/such/run", NO_CACHE], ["/no/such/run"]),
        (["predict", "/no/such/run", "a.png", NO_CACHE], ["/no/such/run"]),
    ],
    ids=" ".join,
)
def test_a_mistake_is_one_line_that_names_it(capsys, argv, words):
    error = error_of(capsys, argv)
    assert all(word in error for word in words), error


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--model", "vinn"], ["'vinn'", "'vin'"]),
        (["--dataset", "digit"], ["'digit'", "'digits'"]),
        (["--dataset", "cifar10"], ["vix data prepare cifar10", "cifar-10-binary.tar.gz"]),
        (["--dataset", "cifar10", "--data-dir", "/no/such/data"], ["/no/such/data"]),
        (["--data-dir", "/d"], ["/d"]),
        (["--lr", "-1"], ["lr", "-1"]),
        (["--lr", "0"], ["lr", "0"]),
        (["--lr", "nan"], ["lr", "nan"]),
        (["--epochs", "0"], ["epochs", "0"]),
        (["-b", "0"], ["batch_size", "0"]),
        (["--opt", "adam"], ["'adam'", "'adamw'"]),
        (["--sched", "cosin"], ["'cosin'", "'cosine'"]),
        (["--smoothing", "1"], ["smoothing", "1"]),
        (["--seed", "-1"], ["seed", "-1"]),
        (["--drop", "1"], ["dropout", "1"]),
        (["--set", "num_landmark=3"], ["'num_landmark'", "'num_landmarks'"]),
        (["--set", "num_landmarks=0"], ["num_landmarks", "0"]),
        (["--set", "channels=3"], ["channels"]),
        (["--set", "epochs=few"], ["epochs", "'few'"]),
        (["--model", "fnet2d", "--set", "heads=3"], ["'heads'"]),
        (["--model", "levin", "--set", "num_distill_classes=10"], ["num_distill_classes"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_a_mistake_in_training_is_one_line_that_names_it(capsys, tmp_path, flags, words):
    error = error_of(capsys, ["train", "--output", str(tmp_path / "runs"), NO_CACHE, *flags])
    assert all(word in error for word in words), error
    assert not (tmp_path / "runs").exists()


def test_an_output_that_is_a_file(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    error = error_of(capsys, ["train", "--output", str(tmp_path / "file"), NO_CACHE])
    assert str(tmp_path / "file") in error


def test_a_loss_that_is_not_finite(capsys, monkeypatch):
    def train(*_):
        raise FloatingPointError("the loss is nan in epoch 2")

    monkeypatch.setattr(launch, "train", train)
    assert "epoch 2" in error_of(capsys, ["train", NO_CACHE])


def test_a_file_that_is_no_image(trained, capsys, tmp_path):
    (tmp_path / "a.png").write_text("no image")
    argv = ["predict", str(trained[0]), str(tmp_path / "a.png"), NO_CACHE]
    assert str(tmp_path / "a.png") in error_of(capsys, argv)


def test_an_image_that_is_not_there(trained, capsys, pictures):
    argv = ["predict", str(trained[0]), pictures[0], "/no/such.png", NO_CACHE]
    assert "/no/such.png" in error_of(capsys, argv)


def test_no_class_wanted(trained, capsys, pictures):
    argv = ["predict", str(trained[0]), *pictures, "--top-k", "0", NO_CACHE]
    assert "top-k 0" in error_of(capsys, argv)


@pytest.mark.parametrize("argv", [[], ["fly"], ["train", "--epochs", "ten"], ["eval"]])
def test_a_command_line_that_cannot_be_parsed_has_exit_code_2(capsys, argv):
    with pytest.raises(SystemExit) as exit:
        main(argv)
    assert exit.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("vix: error:")
    assert error.count("\n") == 1


@pytest.mark.parametrize("command", ["list", "summary", "train", "eval", "predict", "bench"])
def test_every_command_has_help(capsys, command):
    with pytest.raises(SystemExit) as exit:
        main([command, "--help"])
    assert exit.value.code == 0
    assert command in capsys.readouterr().out


def python(*argv):
    root = Path(vix.__file__).parents[1]
    return subprocess.run([sys.executable, *argv], cwd=root, capture_output=True, text=True)


def test_the_package_runs_as_a_module():
    done = python("-m", "vix_flax", "list", "vi?")
    assert (done.returncode, done.stderr) == (0, "")
    assert names_in(done.stdout) == ["vil", "vin", "vip", "vit"]


def test_importing_the_package_imports_nothing_heavy():
    heavy = ("torch", "tensorflow", "matplotlib", "orbax.checkpoint", "PIL")
    code = f"import sys, vix_flax; print([name for name in {heavy} if name in sys.modules])"
    assert python("-c", code).stdout.strip() == "[]"


def test_attention_draws_a_picture(trained, tmp_path, capsys):
    image, picture = tmp_path / "digit.png", tmp_path / "maps.png"
    Image.new("L", (8, 8), 90).save(image)
    assert main(["attention", str(trained[0]), str(image), "--output", str(picture)]) == 0
    assert f"{picture}: 1 layers and their rollout" in capsys.readouterr().out
    with Image.open(picture) as drawn:
        assert min(drawn.size) > 100


def test_a_swapped_run_keeps_the_model(trained, tmp_path, capsys):
    argv = ["train", "--swap", str(trained[0]), "--attention", "linear", "--teacher", "self"]
    settings = [
        "--epochs",
        "1",
        "--warmup-epochs",
        "0",
        "--output",
        str(tmp_path / "run"),
        NO_CACHE,
    ]
    assert main([*argv, *settings]) == 0
    folder = tmp_path / "run"
    fields = json.loads((folder / "config.json").read_text())["config"]["model_fields"]
    assert (fields["dim"], fields["attention"]) == (16, "linear")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--swap", "RUN"], "--swap needs the new --attention"),
        (["--swap", "RUN", "--attention", "liner"], "unknown attention 'liner'"),
        (["--init-from", "RUN", "--model", "vin"], "is a run of vit: leave --model vin out"),
        (["--init-from", "RUN", "--set", "dim=8"], "differ in more than the image size"),
        (["--teacher", "nowhere"], "nowhere is no run"),
    ],
)
def test_a_start_that_is_no_good_is_one_line(trained, tmp_path, capsys, flags, message):
    argv = [str(trained[0]) if flag == "RUN" else flag for flag in flags]
    assert main(["train", *argv, "--output", str(tmp_path / "runs"), NO_CACHE]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_data_list_and_info(capsys):
    assert main(["data", "list"]) == 0
    assert names_in(capsys.readouterr().out) == list(DATASETS)
    assert main(["data", "info", "digits"]) == 0
    printed = capsys.readouterr().out
    assert "10 classes, images 8 × 8 × 1" in printed
    assert "1,259 images" in printed


def test_pictures_of_data_and_of_its_augmentation(tmp_path):
    shown, augmented = tmp_path / "shown.png", tmp_path / "augmented.png"
    assert main(["data", "show", "digits", "--output", str(shown)]) == 0
    flags = ["--mixup", "0.5", "--aa", "rand", "--reprob", "1"]
    assert main(["augment", *flags, "--output", str(augmented)]) == 0
    for path in (shown, augmented):
        with Image.open(path) as image:
            assert min(image.size) > 500


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["data", "info"], "needs the NAME"),
        (["data", "show", "digit"], "did you mean 'digits'"),
        (["data", "info", "digits", "--img-size", "9"], "digits has no use for it"),
        (["augment", "--aa", "auto"], "aa='auto' must be rand, trivial or None"),
        (["augment", "--reprob", "2"], "reprob=2.0 must be from 0 to 1"),
        (["train", "--set", "min_crop=0"], "min_crop=0 must be above 0"),
        (["train", "--set", "aa_magnitude=31"], "aa_magnitude=31 must be from 0 to 30"),
        (["train", "--mixup", "-1"], "mixup=-1.0 must be at least 0"),
    ],
)
def test_mistakes_with_data_are_one_line(argv, message, capsys):
    assert main(argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.parametrize(
    ("flags", "kept"), [([], ("/d", 9)), (["--dataset", "digits"], (None, None))]
)
def test_where_a_runs_data_is_holds_for_the_same_data_alone(monkeypatch, flags, kept):
    trained = TrainConfig(model="vit", dataset="folder", data_dir="/d", img_size=9)
    loaded = types.SimpleNamespace(config=trained)
    monkeypatch.setattr(Run, "load", lambda folder: loaded)
    config = config_of(monkeypatch, "--init-from", "RUN", *flags)
    assert (config.data_dir, config.img_size) == kept
