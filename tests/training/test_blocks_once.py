from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from tiny_models import compiled_once, distinct_names, tiny

from vix_flax.layers import BatchNorm
from vix_flax.training.blocks_once import blocks_traced_once

IN_A_MOMENT = ("vin", "cait", "efficient_vit")
X = jnp.arange(12.0).reshape(1, 4, 3)


class Noted(nn.Module):
    """A block that notes when it is traced: dense, dropout, and whatever else a field asks for."""

    traced: ClassVar[list] = []
    stands_alone: ClassVar[bool] = True
    rate: float = 0.0
    norm: bool = False
    constant: object = None

    @nn.compact
    def __call__(self, x, train=False, context=None):
        self.traced.append(self.path)
        x = nn.Dropout(self.rate, deterministic=not train)(nn.Dense(3)(x))
        if self.norm:
            x = BatchNorm()(x, train)
        return x if context is None else x + context


class Three(nn.Module):
    """Three of them, the last of which may differ."""

    last: dict = None
    fields: dict = None

    @nn.compact
    def __call__(self, x, train=False, context=None):
        each = []
        for i, more in enumerate(({}, {}, self.last or {})):
            block = Noted(**{**(self.fields or {}), **more}, name=f"blocks_{i}")
            x = block(x, train) if context is None else block(x, train, context=context)
            each.append(x)
        return jnp.stack(each)


@pytest.fixture(autouse=True)
def forget():
    yield
    Noted.traced.clear()


def traced(model, *args, **kwargs):
    """What the model gives, plainly and with blocks traced once; and how often these were."""
    variables = model.init(jax.random.key(0), X)
    plain = model.apply(variables, X, *args, **kwargs)
    Noted.traced.clear()
    with blocks_traced_once():
        once = model.apply(variables, X, *args, **kwargs)
    return plain, once, len(Noted.traced)


def test_equal_blocks_are_traced_once():
    plain, once, times = traced(Three())
    np.testing.assert_allclose(once, plain, rtol=1e-6)
    assert times == 1


def test_blocks_with_other_fields_are_others():
    plain, once, times = traced(Three(last={"rate": 0.5}))
    np.testing.assert_allclose(once, plain, rtol=1e-6)
    assert times == 2


@pytest.mark.parametrize("context", [jnp.ones(3), np.ones(3, "float32")])
def test_arrays_may_be_keywords(context):
    plain, once, times = traced(Three(), context=context)
    np.testing.assert_allclose(once, plain, rtol=1e-6)
    assert times == 1


def test_every_layer_draws_dropout_of_its_own():
    model = Three(fields={"rate": 0.5})
    ones = {"Dense_0": {"kernel": jnp.eye(3), "bias": jnp.zeros(3)}}
    variables = {"params": {f"blocks_{i}": ones for i in range(3)}}
    with blocks_traced_once():
        draws = [
            model.apply(variables, jnp.ones((1, 64, 3)), True, rngs={"dropout": key})
            for key in jax.random.split(jax.random.key(1))
        ]
    first, second, third = draws[0] != 0
    assert len(Noted.traced) == 1
    assert (first & ~second).any()
    assert (second & ~third).any()
    assert ((draws[0] != 0) != (draws[1] != 0)).any()


def test_running_statistics_are_kept_as_ever():
    model = Three(fields={"norm": True})
    (plain, changed), (once, ours), times = traced(model, True, mutable=["batch_stats"])
    np.testing.assert_allclose(once, plain, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), ours, changed)
    assert times == 3


def test_blocks_that_jit_cannot_tell_apart_are_called_as_ever():
    plain, once, times = traced(Three(fields={"constant": np.ones(2)}))
    np.testing.assert_allclose(once, plain, rtol=1e-6)
    assert times == 3


def test_variables_are_drawn_as_ever():
    plain = Three().init(jax.random.key(0), X)
    with blocks_traced_once():
        once = Three().init(jax.random.key(0), X)
    jax.tree.map(np.testing.assert_array_equal, once, plain)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in IN_A_MOMENT else pytest.mark.slow)
        for name in distinct_names()
    ],
)
def test_models_give_what_they_gave(name):
    compiled = compiled_once(tiny(name))
    with blocks_traced_once():
        logits = jax.jit(compiled.model.apply)(compiled.variables, compiled.img)
    scale = np.abs(compiled.logits).max()
    np.testing.assert_allclose(logits, compiled.logits, rtol=0, atol=2e-6 * scale)
