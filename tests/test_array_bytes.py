"""What a function's arrays take, against sums by hand and against what XLA gives a program."""

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import Mesh, PartitionSpec
from tiny_models import images, tiny

from vix_flax.array_bytes import largest_array, most_held
from vix_flax.data import Augment
from vix_flax.training import create_state, train_step

KIB = jnp.zeros(256, jnp.float32)


def held(f, *given):
    return most_held(jax.make_jaxpr(f)(*given))


def test_the_largest_array_is_found_wherever_it_is():
    def inner(x):
        return jax.lax.scan(lambda carry, _: (carry + (x[:, None] * x).sum(), None), 0.0, length=3)

    assert largest_array(jax.make_jaxpr(inner)(jnp.ones(10))) == 4 * 10 * 10
    unused = jax.make_jaxpr(lambda x: [jnp.outer(x, x), x.sum()][1])(jnp.ones(10))
    assert largest_array(unused) < 4 * 10 * 10


def test_an_array_is_held_until_its_last_use():
    assert held(lambda x: jnp.sin(jnp.sin(jnp.sin(x))), KIB) == 2048  # one and the next
    both = lambda x: (first := jnp.sin(x), jnp.cos(jnp.cos(jnp.cos(first))))
    assert held(both, KIB) == 3072  # `first` is returned
    assert held(lambda x: [jnp.outer(x, x), jnp.sin(x)][1], KIB) == 1024  # nobody needs the product


def test_a_loops_body_is_held_beside_what_is_around_it():
    def loop(x):
        y = jnp.sin(x)
        body = lambda carry, _: (jnp.sin(jnp.sin(carry)), None)
        return jax.lax.scan(body, x, length=3)[0] + y

    assert held(loop, KIB) == 1024 + 1024 + 2048  # y, the result, two inside


def test_a_jitted_functions_result_is_held_once():
    called = jax.jit(lambda x: jnp.sin(jnp.sin(jnp.sin(x))))
    assert held(lambda x: jnp.sin(called(x)), KIB) == 2048


def test_of_many_devices_all_hold_something():
    mesh = Mesh(jax.devices()[:1], "x")
    inside = jax.shard_map(jnp.sin, mesh=mesh, in_specs=PartitionSpec("x"),
                           out_specs=PartitionSpec("x"))  # fmt: skip
    assert held(inside, KIB) == 2048


@pytest.mark.parametrize(
    "name", ["vit", "fnet2d", pytest.param("cvt_cifar", marks=pytest.mark.slow)]
)
def test_xla_needs_about_as_much(name):
    model = tiny(name)
    img = images(model)
    batch = {"image": jnp.zeros((64, *img.shape[1:]), jnp.uint8), "label": jnp.zeros(64, int)}
    state = jax.eval_shape(lambda: create_state(model, img[:1], optax.adam(1e-3)))
    traced = train_step.trace(state, batch, augment=Augment((0.3, 0.3), (0.4, 0.4)))
    needed = traced.lower().compile().memory_analysis().temp_size_in_bytes
    assert 0.4 < most_held(traced.jaxpr) / needed < 1.5
