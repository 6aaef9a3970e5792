"""What a GPU needs for equal bits is asked of XLA, and the price is said."""

import os

from vix_flax.deterministic import FLAGS, ask_for_determinism


def test_the_flag_is_added_to_what_is_there(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=x")
    assert ask_for_determinism() == "deterministic: costs nothing on a cpu"
    assert os.environ["XLA_FLAGS"] == f"--xla_dump_to=x {FLAGS}"


def test_a_gpu_pays(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr("jax.default_backend", lambda: "gpu")
    assert "slower" in ask_for_determinism()
