"""What a run learns: without labels it leaves the plain model, whose head labels then train."""

import dataclasses

import jax
import numpy as np
import pytest
from short_run import CONFIG

import vix_flax as vix
from vix_flax.data import load_dataset
from vix_flax.launch import train
from vix_flax.run import Run
from vix_flax.task import make_task
from vix_flax.training import create_state, make_optimizer, train_step
from vix_flax.training.mesh import make_mesh

SMALL = {
    "mpp": dict(mask_prob=0.3),
    "byol": dict(projection_size=4, projection_hidden_size=8, moving_average_decay=0.5),
}


def pretraining(name, **changes):
    fields = dict(objective=name, objective_options=SMALL[name], epochs=1)
    return dataclasses.replace(CONFIG, **{**fields, **changes})


@pytest.fixture(scope="module", params=["mpp", pytest.param("byol", marks=pytest.mark.slow)])
def pretrained(request, tmp_path_factory):
    return train(pretraining(request.param), tmp_path_factory.mktemp("runs"))


def test_its_metrics_are_losses(pretrained):
    assert {"train_loss", "val_loss", "grad_norm"} <= pretrained.val.keys()
    assert not any("accuracy" in name for name in pretrained.val)
    assert pretrained.test.keys() == {"loss"}
    assert (pretrained.folder / "curves.png").exists()
    assert not (pretrained.folder / "confusion.png").exists()


def test_the_plain_model_comes_back(pretrained):
    run = Run.load(pretrained.folder)
    assert isinstance(run.model, vix.ViT)
    assert vix.count_params(run.variables) == pretrained.params
    images = load_dataset("digits").test.images[:2]
    assert vix.attention_maps(run.model, run.variables, run.augment(images)).shape[0] == 2
    for use in (run.evaluate, lambda: run.predict(images)):
        with pytest.raises(ValueError, match=r"without labels .* vix train --init-from"):
            use()


def test_labels_go_on_from_there(pretrained, tmp_path):
    start = str(pretrained.folder)
    still = dataclasses.replace(CONFIG, init_from=start, epochs=1, lr=1e-9, model_ema=False)
    run = Run.load(train(still, tmp_path).folder)
    before = Run.load(start).variables["params"]["blocks_0"]
    after = run.variables["params"]["blocks_0"]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), before, after)


@pytest.mark.slow
def test_the_slow_copy_follows_by_its_decay():
    data, config = load_dataset("digits"), pretraining("byol")
    model = vix.create_model("vit", image_size=8, channels=1, **CONFIG.model_fields)
    task = make_task(config, model, data, make_mesh())
    tx = make_optimizer("adamw", lambda step: 1e-2, weight_decay=0.0)
    state = create_state(task.module, task.inputs, tx)
    batch = {"image": data.train.images[:8], "label": data.train.labels[:8]}
    norm = lambda tree: tree["net"]["blocks_0"]["mlp"]["dense1"]["kernel"]
    step = lambda state: train_step(state, batch, augment=task.augment, objective=task.objective)[0]

    first = step(state)
    online = norm(first.params["online"])
    copy = norm(first.extra["target"]["encoder"]["params"])
    assert np.abs(online - copy).max() > 1e-3  # one step behind
    online, copy = jax.tree.map(np.asarray, (online, copy))
    second = step(first)
    moved = norm(second.extra["target"]["encoder"]["params"])
    np.testing.assert_allclose(moved, 0.5 * copy + 0.5 * online, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("objective", "changes", "message"),
    [
        ("mpp", dict(model="cct", model_fields={}), "transformer=CCT must be a ViT on patches"),
        ("mpp", dict(objective_options={"mask_prop": 1}), "no field 'mask_prop'; did you mean"),
        ("mpp", dict(objective_options={"mask_prob": 0}), "mask_prob=0 must be above 0"),
        ("byol", dict(batch_size=1), "batch_size=1 must be 2 or more"),
        ("byol", dict(teacher="self", swap="run"), "'byol' has no use for swap"),
        ("byol", dict(aa="rand"), "'byol' has no use for aa"),
        ("mpp", dict(mixup=0.2), "'mpp' has no use for mixup"),
        ("mpp", dict(init_from="run"), "'mpp' has no use for init_from"),
        ("mpp", dict(objective="mmp"), "objective='mmp' is unknown; did you mean 'mpp'"),
        ("mpp", dict(objective="classify"), "objective_options=.* must be empty"),
    ],
)
def test_what_cannot_be_learned(tmp_path, objective, changes, message):
    with pytest.raises(ValueError, match=message):
        train(pretraining(objective, **changes), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
