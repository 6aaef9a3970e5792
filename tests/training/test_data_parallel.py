"""Devices that work alone and meet; that a run on several is the one on a single device:
tests/test_devices.py.
"""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from vix_flax.layers import BatchNorm
from vix_flax.training import data_parallel
from vix_flax.training.data_parallel import (
    better_alone,
    many_copies,
    mean_over_devices,
    norms_can_meet,
    noting_batch_norms,
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
        if self.ours:
            x = nn.Sequential([BatchNorm()])(x, not train)
        if self.theirs:
            x = nn.BatchNorm(name="flaxs")(x, use_running_average=not train)
        return x


def all_norms_can_meet(model, train=True):
    variables = model.init(jax.random.key(0), jnp.ones((2, 3)), train=False)
    with noting_batch_norms() as norms:
        mutable = ["batch_stats"] if train else []
        model.apply(variables, jnp.ones((2, 3)), train=train, mutable=mutable)
    return norms_can_meet(norms, variables)


def test_only_norms_of_this_library_are_known_to_meet():
    assert all_norms_can_meet(Normed())
    assert not all_norms_can_meet(Normed(theirs=True))
    assert not all_norms_can_meet(Normed(ours=False, theirs=True))
    # In evaluation, as of a teacher, there is nothing to meet for.
    assert not all_norms_can_meet(Normed(), train=False)
    assert all_norms_can_meet(Normed(ours=False))


def test_copies_on_cpus_are_better_alone_with_little(monkeypatch):
    monkeypatch.setattr(data_parallel, "LITTLE_BYTES", {"cpu": 4000})
    on = lambda platform: SimpleNamespace(
        size=2, shape={"fsdp": 1}, devices=np.array(2 * [SimpleNamespace(platform=platform)])
    )
    little, much = jnp.zeros(1000), [jnp.zeros(1000), jnp.zeros(1)]
    assert better_alone(little, on("cpu"))
    assert not better_alone(much, on("cpu"))
    assert not better_alone(little, on("gpu"))
    assert not better_alone(little, None)
