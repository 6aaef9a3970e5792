"""A ViT around any encoder module."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from tiny_models import images, tiny

import vix_flax as vix
from vix_flax.mixers import TokenMlp


def model(**fields):
    return tiny("efficient_vit_cifar", **fields)


class Times(nn.Module):
    """An encoder that knows nothing of training."""

    factor: float = 3.0

    @nn.compact
    def __call__(self, x):
        return x * self.param("factor", nn.initializers.constant(self.factor), ())


class Noisy(nn.Module):
    """An encoder that does."""

    @nn.compact
    def __call__(self, x, train=False):
        return x + train


AROUND = {"cls_token": np.zeros((1, 1, 16), "f4"), "pos_embedding": np.zeros((1, 25, 16), "f4")}


@pytest.mark.parametrize("remat", [False, True])
def test_tokens_go_through_the_transformer_whatever_it_is(remat):
    x = np.random.default_rng(0).normal(size=(2, 7, 16)).astype("f4")
    efficient = model(transformer=Times(), remat=remat)
    variables = {"params": {**AROUND, "transformer": {"factor": jnp.float32(-2)}}}
    for train in (False, True):
        out = efficient.apply(variables, x, train=train, method="encode")
        np.testing.assert_array_equal(out, -2 * x)
    shapes = jax.eval_shape(efficient.init, jax.random.key(0), images(efficient))
    assert shapes["params"]["transformer"]["factor"].shape == ()


@pytest.mark.parametrize("remat", [False, True])
def test_a_transformer_that_knows_training_is_told(remat):
    x = np.zeros((2, 7, 16), "f4")
    encode = lambda train: model(transformer=Noisy(), remat=remat).apply(
        {"params": AROUND}, x, train=train, method="encode"
    )
    np.testing.assert_array_equal(encode(False), x)
    np.testing.assert_array_equal(encode(True), x + 1)


def test_around_it_are_patches_a_class_token_positions_and_a_head():
    efficient = model(transformer=Times())
    out, variables = jax.eval_shape(
        efficient.init_with_output, jax.random.key(0), images(efficient)
    )
    assert out.shape == (3, 5)
    parts = {"cls_token", "embedding", "head", "pos_embedding", "transformer"}
    assert variables["params"].keys() == parts
    assert variables["params"]["pos_embedding"].shape == (1, 1 + 24, 16)


AFFAIR = "has no effect here: leave it out; it is the affair of the transformer"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(depth=2), f"depth {AFFAIR}"),
        (dict(heads=2), f"heads {AFFAIR}"),
        (dict(mlp_dim=2), f"mlp_dim {AFFAIR}"),
        (dict(dim_head=2), f"dim_head {AFFAIR}"),
        (dict(dropout=0.5), f"dropout {AFFAIR}"),
        (dict(mixer=TokenMlp), f"mixer {AFFAIR}"),
        (dict(qkv_bias=True), f"qkv_bias {AFFAIR}"),
        (dict(attention="linear"), "attention has no effect here: the encoder has its own"),
        (
            dict(attention_options={"attention_dropout": 0.5}),
            r"no effect here: .*give transformer=Transformer\(attention=…\)",
        ),
        (dict(position="rotary"), "position='rotary' is unknown here"),
        (dict(transformer=None), r"transformer=None must be a module that maps \(b, n, 16\)"),
        (
            dict(transformer=vix.Encoder(dim=8, depth=1)),
            "transformer has dim=8, the model dim=16: give both the same",
        ),
    ],
)
def test_fields_that_cannot_work(fields, message):
    with pytest.raises(ValueError, match=message):
        model(**fields)


def test_a_class_is_no_encoder():
    with pytest.raises(ValueError, match=r"transformer=.*Noisy.* must be a module that maps"):
        model(transformer=Noisy)
