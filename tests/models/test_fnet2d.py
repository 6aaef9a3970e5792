import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vix_flax import FNet2D

img = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 6, 2)), jnp.float32)


def tiny(**fields):
    return FNet2D(**(dict(num_classes=5, dim=8, depth=1, mlp_dim=12, channels=2) | fields))


@pytest.fixture(scope="module")
def variables():
    """Of the right shapes, without compiling `init`."""
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(tiny().init, jax.random.key(0), img)
    return jax.tree.map(lambda leaf: rng.uniform(0.1, 0.5, leaf.shape).astype("f4"), shapes)


def run(model, variables, img=img):
    return jax.jit(model.apply)(variables, img)


def train(model, variables, **rngs):
    step = jax.jit(lambda v: model.apply(v, img, train=True, mutable=["batch_stats"], rngs=rngs))
    return step(variables)


@pytest.fixture(scope="module")
def trained(variables):
    """Logits of a training step and updated collections."""
    return train(tiny(), variables)


def test_training_updates_the_running_statistics_and_evaluation_uses_them(variables, trained):
    updates = trained[1]
    before, after = variables["batch_stats"], updates["batch_stats"]
    assert jax.tree.structure(before) == jax.tree.structure(after)
    assert all((a != b).all() for a, b in zip(*map(jax.tree.leaves, (before, after)), strict=True))
    logits = run(tiny(), variables)
    assert np.abs(run(tiny(), {**variables, **updates}) - logits).max() > 1e-3


def test_logits_do_not_depend_on_batch_mates(variables):
    logits, mixed = (run(tiny(), variables, x) for x in (img, img.at[1:].mul(9)))
    np.testing.assert_allclose(mixed[0], logits[0], rtol=0, atol=1e-5)
    assert np.abs(mixed[1:] - logits[1:]).max() > 1e-2


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (8, 8)])
def test_any_image_size_goes(variables, size):
    out = jax.eval_shape(tiny().apply, variables, jnp.zeros((2, *size, 2)))
    assert (out.shape, out.dtype) == ((2, 5), jnp.float32)


def test_the_features_are_the_mean_over_the_map(variables):
    def features(model, img):
        return model.encode(model.tokens(img)).mean(axis=(1, 2))

    by_hand = tiny().apply(variables, img, method=features)
    np.testing.assert_allclose(run(tiny(num_classes=0), variables), by_hand, rtol=1e-5, atol=1e-6)


def test_remat_changes_no_value(variables):
    np.testing.assert_allclose(
        run(tiny(remat=True), variables), run(tiny(), variables), rtol=0, atol=1e-6
    )


def test_dropout_is_drawn_in_training(variables, trained):
    dropped, _ = train(tiny(dropout=0.5), variables, dropout=jax.random.key(0))
    assert np.abs(dropped - trained[0]).max() > 1e-3


@pytest.mark.parametrize("field", ["dim", "depth", "mlp_dim", "channels"])
@pytest.mark.parametrize("value", [0, 1.5, None])
def test_widths_are_positive_ints(field, value):
    with pytest.raises(ValueError, match=f"{field}={value} must be a positive int"):
        tiny(**{field: value})


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((4, 6, 2), "add a batch axis"),
        ((1, 2, 4, 6), "looks like NCHW"),
        ((1, 4, 6, 3), "build the model with channels=3"),
    ],
)
def test_other_images_are_refused(variables, shape, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(tiny().apply, variables, jnp.zeros(shape))
