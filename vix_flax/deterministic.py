"""The same bits from the same command, on a GPU, too."""

import os

import jax

FLAGS = "--xla_gpu_deterministic_ops=true"


def ask_for_determinism() -> str:
    """Before anything is computed; says what it costs on this machine.

    A CPU and a TPU give the same bits anyway. On a GPU, XLA may add gradients that meet in one
    place in any order, and may time several kernels and take another one next time; this forbids
    both, and whatever has no such form fails to compile instead of being random.
    """
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}".strip()
    if jax.default_backend() != "gpu":
        return f"deterministic: costs nothing on a {jax.default_backend()}"
    return "deterministic: sorted scatters, kernels not chosen by timing: steps are slower"
