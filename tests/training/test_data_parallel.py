"""Devices that work alone and meet; that a run on several is the one on a single device:
tests/test_devices.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from vix_flax.layers import BatchNorm
from vix_flax.training import data_parallel
from vix_flax.training.data_parallel import (
    gradient_with_norms,
    many_copies,
    mean_over_devices,
    on_each_device,
)
from vix_flax.training.mesh import make_mesh


def test_a_device_that_is_alone_has_no_copies():
    assert not many_copies(None)
    assert not many_copies(make_mesh("data=1"))  # several: tests/test_devices.py


def test_each_device_has_its_images_and_a_key_of_its_own():
    def gradient(params, extra, images, labels, key, context):
        grads = {"head": params + images.sum() + labels.sum() + context}
        return (grads, {"drawn": jax.random.uniform(key)}), extra

    key, one = jax.random.key(0), jnp.ones(())
    run = jax.jit(on_each_device(gradient, make_mesh("data=1")))
    (grads, metrics), extra = run(one, 5 * one, jnp.ones((4, 2)), jnp.ones(4), key, one)
    assert (grads["head"], extra) == (1 + 8 + 4 + 1, 5)
    assert metrics["drawn"] == jax.random.uniform(jax.random.fold_in(key, 0))


def test_small_gradients_of_a_module_meet_as_one_and_keep_their_places(monkeypatch):
    monkeypatch.setattr(data_parallel, "SMALL_BYTES", 16)
    dense = {"bias": jnp.arange(4.0), "kernel": jnp.arange(6.0).reshape(2, 3)}
    low = {"scale": jnp.ones(2), "token": jnp.ones((2, 2), jnp.bfloat16)}
    grads = {"blocks_0": {"dense": dense, "norm": low}, "blocks_1": low, "token": jnp.ones(3)}
    whole = jax.sharding.PartitionSpec()
    run = jax.shard_map(
        mean_over_devices, mesh=make_mesh("data=1"), in_specs=whole, out_specs=whole
    )
    # The kernel, and the small ones of each of the three.
    assert jax.make_jaxpr(run)(grads).pretty_print().count("psum") == 4
    means = run(grads)
    types = [jax.tree.map(lambda x: x.dtype, tree) for tree in (means, grads)]
    assert types[0] == types[1]
    jax.tree.map(np.testing.assert_array_equal, means, grads)


class Normed(nn.Module):
    """With a BatchNorm of this library, or Flax's, or both."""

    ours: bool = True
    theirs: bool = False

    @nn.compact
    def __call__(self, x, train=True):
        x = nn.Dense(3)(x)
        if self.ours:
            x = nn.Sequential([BatchNorm()])(x, not train)
        if self.theirs:
            x = nn.BatchNorm(name="flaxs")(x, use_running_average=not train)
        return x


def works_alone(model, train=True):
    """Whether the gradient of a batch is taken inside `shard_map`."""
    x = jnp.arange(12.0).reshape(4, 3)
    variables = model.init(jax.random.key(0), x, train=False)

    def loss_of(params, extra, images, labels, key, context):
        mutable = ["batch_stats"] if train else []
        y, updates = model.apply({"params": params, **extra}, images, train, mutable=mutable)
        return jnp.square(y).mean(), ({}, updates)

    given = (
        variables["params"],
        {"batch_stats": variables["batch_stats"]},
        x,
        x,
        jax.random.key(0),
    )
    run = jax.make_jaxpr(gradient_with_norms(loss_of, make_mesh("data=1")))(*given, None)
    return "shard_map" in str(run)


def test_only_norms_of_this_library_are_known_to_meet():
    assert works_alone(Normed())
    assert not works_alone(Normed(theirs=True))
    assert not works_alone(Normed(ours=False, theirs=True))
    # In evaluation, as of a teacher, there is nothing to meet for.
    assert not works_alone(Normed(), train=False)


def test_devices_with_norms_work_alone_in_small_steps_only(monkeypatch):
    monkeypatch.setattr(data_parallel, "LITTLE_BYTES", 40)
    assert not works_alone(Normed())
