"""A run's folder gives back the model that was trained, or says what is wrong with it."""

import json

import chex
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

import vix_flax as vix
from vix_flax.data import load_dataset
from vix_flax.run import Run


@pytest.fixture(scope="module")
def loaded(result):
    return Run.load(result.folder)


def test_a_loaded_run_evaluates_as_reported(result, loaded):
    again = loaded.evaluate()
    assert again["accuracy"] == result.test["accuracy"]
    assert again["loss"] == pytest.approx(result.test["loss"], rel=1e-6)
    np.testing.assert_array_equal(again["confusion"], result.test["confusion"])
    assert loaded.evaluate("val")["accuracy"] == result.val["val_accuracy"]


def test_a_loaded_run_has_the_model_that_was_trained(result, loaded):
    assert vix.count_params(loaded.variables) == result.params
    assert loaded.config.model == "vit"
    assert loaded.classes == tuple("0123456789")
    assert loaded.image_shape == (8, 8, 1)


def test_predictions_are_probabilities_that_give_the_reported_accuracy(result, loaded):
    test = load_dataset("digits").test
    probabilities = loaded.predict(test.images)
    assert probabilities.shape == (359, 10)
    assert (probabilities >= 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    accuracy = (probabilities.argmax(axis=1) == test.labels).mean()
    assert accuracy == pytest.approx(result.test["accuracy"])


@pytest.fixture
def copy(result, tmp_path):
    """The run without its checkpoint, and a function that changes its config."""

    def change(edit):
        saved = json.loads((result.folder / "config.json").read_text())
        edit(saved)
        (tmp_path / "config.json").write_text(json.dumps(saved))
        return tmp_path

    return change


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(ValueError, match=r"no run.*config\.json"):
        Run.load(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", "null", '{"config": {}}'])
def test_a_damaged_config_is_named(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json"):
        Run.load(tmp_path)


def test_a_config_of_another_version_is_named(copy):
    with pytest.raises(ValueError, match="learning_rate"):
        Run.load(copy(lambda saved: saved["config"].update(learning_rate=1)))


def test_a_config_out_of_range_is_refused(copy):
    with pytest.raises(ValueError, match="epochs=0"):
        Run.load(copy(lambda saved: saved["config"].update(epochs=0)))


def test_a_run_without_a_checkpoint(copy):
    with pytest.raises(ValueError, match="checkpoint"):
        Run.load(copy(lambda saved: None))


def test_a_checkpoint_of_another_model(result, copy):
    folder = copy(lambda saved: saved["config"]["model_fields"].update(depth=2))
    (folder / "checkpoint").symlink_to(result.folder / "checkpoint")
    with pytest.raises(ValueError, match="checkpoint cannot be restored"):
        Run.load(folder)


def test_the_parameters_themselves_instead_of_their_average(result):
    with ocp.CheckpointManager(result.folder / "checkpoint") as manager:
        args = ocp.args.Composite(training=ocp.args.StandardRestore())
        saved = manager.restore(manager.latest_step(), args=args)["training"]
    for averaged, name in ((False, "params"), (True, "ema")):
        loaded = Run.load(result.folder, averaged=averaged).variables["params"]
        chex.assert_trees_all_equal(loaded, saved[name])
    equal = jax.tree.map(np.array_equal, saved["params"], saved["ema"])
    assert not any(jax.tree.leaves(equal))
