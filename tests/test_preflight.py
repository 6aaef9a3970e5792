"""A step that is too large is refused before anything is written, or made smaller by `fit`."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from short_run import CONFIG, SIZES

from vix_flax.launch import train
from vix_flax.preflight import GIB, bytes_needed, bytes_there, differences, others
from vix_flax.trainer import Stopped, Trainer
from vix_flax.training import TrainConfig

FITTING = dataclasses.replace(CONFIG, batch_size=64, fit=True, memory_limit=1.0)


def changed(**fields):
    return dataclasses.replace(FITTING, **fields)


def needs(gib):
    """A step needs so much with a whole batch, half of it with remat, a part with accumulation."""

    def bytes_needed(self):
        part = self.batches.batch_size / 64 / self.config.grad_accum_steps
        return int(gib * part * GIB / (2 if self.config.model_fields.get("remat") else 1))

    return bytes_needed


def test_arguments_results_and_temporaries_count_and_what_is_donated_once():
    x = jnp.ones((256, 1024))  # a MiB
    needed = lambda program, **how: bytes_needed(jax.jit(program, **how).lower(x).compile())
    assert needed(lambda x: x + 1) == 2 * 2**20
    assert needed(lambda x: x + 1, donate_argnums=0) == 2**20
    assert needed(lambda x: jnp.sort(x).sum()) >= 2 * 2**20  # what is sorted lies somewhere


def test_the_limit_holds_instead_of_what_the_device_has():
    assert bytes_there(0.5) == GIB // 2
    assert bytes_there() > 2**20


def test_other_configs_in_the_order_of_the_harm_they_do():
    tried = [differences(FITTING, other) for other in others(FITTING, 64, 8, has_remat=True)]
    assert tried == [
        "--set remat=true",
        "--grad-accum-steps 2",
        "--grad-accum-steps 2 --set remat=true",
        "--grad-accum-steps 4",
        "--grad-accum-steps 4 --set remat=true",
        "--grad-accum-steps 8",
        "--grad-accum-steps 8 --set remat=true",
        "--batch-size 32 --set remat=true",
        "--batch-size 16 --set remat=true",
    ]


def test_what_cannot_be_changed_is_not():
    config = TrainConfig(objective="byol", batch_size=8)
    tried = [differences(config, other) for other in others(config, 8, 2, has_remat=False)]
    assert tried == ["--batch-size 4"]


def test_a_step_that_does_not_fit_is_refused_and_leaves_nothing(tmp_path):
    config = changed(fit=False, memory_limit=1e-4)
    message = r"a step needs 0\.\d+ GiB .* has 0\.0001: choose a smaller --batch-size \(it is 64\)"
    with pytest.raises(ValueError, match=message):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_nothing_fits(tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "bytes_needed", needs(1e6))
    with pytest.raises(ValueError, match="nothing that --fit has tried fits"):
        train(FITTING, tmp_path / "run", say=lambda line: None)


@pytest.fixture
def fitted(tmp_path, monkeypatch):
    """A run that was made smaller, and stopped; what was said of it."""
    monkeypatch.setattr(Trainer, "bytes_needed", needs(3.0))
    said = []
    with pytest.raises(Stopped):
        train(FITTING, tmp_path / "run", say=said.append, stop=lambda: True)
    return tmp_path / "run", said


def saved(folder):
    return json.loads((folder / "config.json").read_text())["config"]


def test_the_first_that_fits_is_taken_and_said(fitted):
    folder, said = fitted
    assert said == [
        "a step needs 3 GiB of each device, which has 1",
        "with --set remat=true: 1.5 GiB",
        "with --grad-accum-steps 2: 1.5 GiB",
        "with --grad-accum-steps 2 --set remat=true: 0.75 GiB",
    ]
    assert saved(folder)["grad_accum_steps"] == 2
    assert saved(folder)["model_fields"]["remat"] is True


def test_the_same_command_goes_on_with_what_was_taken(fitted, monkeypatch):
    folder, _ = fitted
    monkeypatch.setattr(Trainer, "bytes_needed", needs(1.0))  # on a larger device
    started = []
    with pytest.raises(Stopped):
        train(FITTING, folder, on_start=started.append, stop=lambda: True)
    assert started[0].done == 1
    assert saved(folder)["grad_accum_steps"] == 2


def test_another_batch_than_was_asked_for_is_another_config(fitted):
    folder, _ = fitted
    with pytest.raises(ValueError, match=r"another config: batch_size=32 \(was 64\)"):
        train(changed(batch_size=32, memory_limit=100.0), folder, say=lambda line: None)


def test_a_run_that_goes_on_is_not_changed(fitted, monkeypatch):
    folder, _ = fitted
    monkeypatch.setattr(Trainer, "bytes_needed", needs(30.0))  # on a smaller device
    with pytest.raises(ValueError, match="a run that goes on keeps its batches"):
        train(FITTING, folder, say=lambda line: None)


def test_a_step_is_measured_and_compiled_once(tmp_path, caplog):
    def steps_compiled():
        return [r for r in caplog.records if "jit(train_step)" in r.getMessage()]

    config = dataclasses.replace(CONFIG, epochs=1, model_fields={**SIZES, "mlp_dim": 24})
    with jax.log_compiles(), caplog.at_level("WARNING"):
        train(config, tmp_path / "run")
    assert np.size([r for r in steps_compiled() if "Finished XLA" in r.getMessage()]) == 1
