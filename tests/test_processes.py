"""Two processes over loopback train one run, fail and stop together; either goes on alone."""

import os
import signal
import socket
import subprocess
import sys

import pytest
from short_run import SIZES
from test_devices import assert_same_run

from vix_flax.cli import make_parser
from vix_flax.launch import train
from vix_flax.processes import join, stop_together, together
from vix_flax.run_folder import CHECKPOINT
from vix_flax.train_command import config_from
from vix_flax.training.checkpoint import whole_steps

SLOW = pytest.mark.slow
EPOCHS, STEPS = 4, 26  # of a batch that two can share


def flags(folder):
    fields = {**SIZES, "dim": 32, "mlp_dim": 64, "dropout": 0.2}
    fields = [f"--set={name}={value}" for name, value in fields.items()]
    given = ("--model=vit", "--model-ema", f"--epochs={EPOCHS}", "--batch-size=48")
    return [*given, *fields, f"--output={folder}"]


def config(folder):
    """What these flags train."""
    return config_from(make_parser().parse_args(["train", *flags(folder)]))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The folder of the run that one process makes."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    train(config(folder), folder)
    return folder


def start(*argv, count=2, **environment):
    """That many processes of `vix train`, as a cluster would start them."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{found.getsockname()[1]}"
    command = [sys.executable, "-m", "vix_flax", "train", *argv, "--no-compilation-cache"]
    return [
        subprocess.Popen(
            [*command, f"--distributed={address},{index},{count}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "COLUMNS": "500", **environment},
        )
        for index in range(count)
    ]


def said_by(processes):
    """(exit code, stdout, stderr) of each, without what the communication library prints."""
    said = []
    for process in processes:
        out, errors = process.communicate(timeout=200)
        lines = [line for line in out.splitlines() if "[Gloo]" not in line]
        said.append((process.returncode, "\n".join(lines), errors))
    return said


def stop_in_the_middle(folder, process, number):
    """Starts two, and sends that one a signal after the first epoch."""
    processes = start(*flags(folder))
    for line in processes[0].stdout:
        if line.startswith("epoch   1/"):
            processes[process].send_signal(number)
            break
    for code, _, errors in said_by(processes):
        assert code == 0, errors


@SLOW
@pytest.mark.parametrize(
    ("process", "number"),
    [(1, signal.SIGTERM), (0, signal.SIGINT)],
)
def test_two_stop_together_and_one_goes_on(process, number, alone, tmp_path):
    stop_in_the_middle(tmp_path / "run", process, number)
    stopped = whole_steps(tmp_path / "run" / CHECKPOINT)[-1]
    assert STEPS <= stopped < EPOCHS * STEPS
    train(config(tmp_path / "run"), tmp_path / "run")
    assert_same_run(tmp_path / "run", alone, rtol=1e-4)


@SLOW
def test_one_stops_and_two_go_on(alone, tmp_path):
    folder, taken = tmp_path / "run", []
    with pytest.raises(Exception, match="stopped after step 30"):
        train(config(folder), folder, on_step=taken.append, stop=lambda: len(taken) >= 30)
    first, second = said_by(start(*flags(folder)))
    assert first[0] == second[0] == 0, first[2] + second[2]
    assert "from step 31, on 2 devices" in first[1]
    assert "test accuracy" in first[1]
    assert second[1] == ""  # the first speaks for both
    assert_same_run(folder, alone, rtol=1e-4)


@SLOW
def test_each_may_have_several_devices(alone, tmp_path):
    flag = "--xla_force_host_platform_device_count=2"
    environment = {"XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {flag}"}
    processes = start(*flags(tmp_path / "run"), "--mesh=data=2,fsdp=2", **environment)
    for code, _, errors in said_by(processes):
        assert code == 0, errors
    assert_same_run(tmp_path / "run", alone, rtol=1e-4)


@SLOW
def test_what_fails_in_one_fails_in_both(tmp_path):
    (tmp_path / "thesis.tex").write_text("keep me")  # only the first looks at the folder
    first, second = said_by(start(*flags(tmp_path)))
    assert first[0] == second[0] == 2
    assert "no run's folder and not empty" in first[2]
    assert "process 0 has failed: see what it printed" in second[2]


@SLOW
def test_a_mesh_of_fewer_devices_than_there_are(tmp_path):
    for code, _, errors in said_by(start(*flags(tmp_path / "run"), "--mesh=data=1")):
        assert code == 2
        assert "is for 1 devices, and there are 2: all processes take part" in errors


@pytest.mark.parametrize("how", ["atuo", "host,0,2", "host:1,0", "host:1,2,2", "host:1,a,2"])
def test_a_mistyped_way_to_join(how):
    with pytest.raises(ValueError, match=f"distributed='{how}'"):
        join(how)


def test_one_process_needs_nobody():
    assert stop_together(True, 0)
    assert not stop_together(False, 1)
    with pytest.raises(KeyError), together():
        raise KeyError("mine")
