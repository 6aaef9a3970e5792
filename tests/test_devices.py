"""On many devices a run is the one on a single device; what they are may change under way."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from short_run import CONFIG, SIZES

from vix_flax.training import TrainConfig

SLOW = pytest.mark.slow
BATCH = 48  # which eight devices can share; an epoch has 26 steps of it
DROPPING = dataclasses.replace(
    CONFIG,
    model_fields={**SIZES, "dim": 32, "mlp_dim": 64, "dropout": 0.2},
    batch_size=BATCH,
    crop_padding=1,
    mixup=0.2,
    model_ema_decay=0.8,
)
CONVOLVING = TrainConfig(  # with BatchNorm
    model="cvt_cifar",
    model_fields=dict(s1_emb_dim=8, s2_emb_dim=8, s3_emb_dim=8, s1_heads=1, s2_heads=1, s3_heads=1,
                      s1_depth=1, s2_depth=1, s3_depth=1, dropout=0.0),
    epochs=2, batch_size=BATCH, lr=1e-3,
)  # fmt: skip
RESIDENT = dataclasses.replace(DROPPING, loader="device")
PARTED = dataclasses.replace(DROPPING, grad_accum_steps=2)
MPP = dataclasses.replace(CONFIG, objective="mpp", model_ema=False, batch_size=BATCH)


def on_devices(*jobs):
    """How often each job compiled a step; see `on_devices.py`."""
    jobs = [
        {**job, "folder": str(job["folder"]), "config": dataclasses.asdict(job["config"])}
        for job in jobs
    ]
    script = str(Path(__file__).with_name("on_devices.py"))
    done = subprocess.run(
        [sys.executable, script, json.dumps(jobs)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def meshed(config, mesh, **changes):
    return dataclasses.replace(config, mesh=mesh, **changes)


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_same_run(folder, expected, rtol):
    """Equal metrics (0: to the last bit), but for times and memory."""
    for row, other in zip(rows(folder), rows(expected), strict=True):
        for name in other.keys() - {"seconds", "images_per_second", "memory_gib"}:
            np.testing.assert_allclose(row[name], other[name], rtol=rtol, err_msg=name)


def train_all(root, **jobs):
    """Name of each job → its folder, and how often it compiled a step."""
    jobs = {name: {**job, "folder": root / job.get("folder", name)} for name, job in jobs.items()}
    counts = on_devices(*jobs.values())
    return {name: job["folder"] for name, job in jobs.items()}, counts


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folders of one run on a single device and on eight; and how often each compiled."""
    return train_all(
        tmp_path_factory.mktemp("devices"),
        one=dict(config=meshed(DROPPING, "data=1")),
        cut=dict(config=meshed(DROPPING, "data=2,fsdp=4")),
    )


def test_many_devices_learn_what_one_learns(trained):
    folders, _ = trained
    assert_same_run(folders["cut"], folders["one"], rtol=1e-4)


def test_a_step_is_compiled_once(trained):
    assert trained[1] == [1, 1]


@SLOW
def test_devices_may_change_while_a_run_is_stopped(trained, tmp_path):
    folders, counts = train_all(
        tmp_path,
        one=dict(config=meshed(DROPPING, "data=1"), folder="run", stop=5),
        two=dict(config=meshed(DROPPING, "data=1,fsdp=2"), folder="run", stop=30),
        last=dict(config=meshed(DROPPING, "data=1"), folder="run"),
    )
    assert_same_run(folders["last"], trained[0]["one"], rtol=1e-4)
    assert counts == [1, 1, 1]


@SLOW
def test_on_the_same_devices_it_goes_on_to_the_last_bit(trained, tmp_path):
    cut = meshed(DROPPING, "data=2,fsdp=4")
    folders, _ = train_all(
        tmp_path, first=dict(config=cut, folder="run", stop=30), last=dict(config=cut, folder="run")
    )
    assert_same_run(folders["last"], trained[0]["cut"], rtol=0)


CASES = {
    "copies": (DROPPING, {"mesh": "data=8"}),
    "batchnorm": (CONVOLVING, {}),
    "batchnorm of devices that work alone": (CONVOLVING, {"mesh": "data=8"}),
    "accumulation": (PARTED, {}),
    "resident": (RESIDENT, {}),
    "several at once": (RESIDENT, {"steps_at_once": 4}),  # an epoch leaves two over
    "mpp": (MPP, {}),
}


@SLOW
def test_parts_of_a_batch_change_nothing_where_each_device_has_its_own(tmp_path):
    config = dataclasses.replace(DROPPING, model_fields={**DROPPING.model_fields, "dropout": 0.0})
    folders, counts = train_all(
        tmp_path,
        one=dict(config=meshed(config, "data=1")),
        few=dict(config=meshed(config, "data=1"), kept=1),
        many=dict(config=meshed(config, "data=8"), kept=1),
        cut=dict(config=meshed(config, "data=2,fsdp=4"), kept=1),
    )
    for name in ("few", "many", "cut"):
        assert_same_run(folders[name], folders["one"], rtol=1e-4)
    assert counts == [1, 1, 1, 1]


@SLOW
@pytest.mark.parametrize("name", CASES)
def test_whatever_is_trained(name, tmp_path):
    config, changes = CASES[name]
    one = dict(folder=tmp_path / "one", config=meshed(config, "data=1"))
    many = dict(
        folder=tmp_path / "many", config=meshed(config, **{"mesh": "data=4,fsdp=2", **changes})
    )
    counts = on_devices(one, many)
    assert_same_run(many["folder"], one["folder"], rtol=2e-4)
    assert counts == [1, 2 if "steps_at_once" in changes else 1]  # and one for what is left over


def test_there_is_one_device_here():
    assert jax.device_count() == 1  # so that all other tests are of a single one
