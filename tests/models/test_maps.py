"""The convolutional families: stages, shared widths, second heads. (Their numbers: test_golden.)"""

import jax
import jax.numpy as jnp
import pytest

import vix_flax as vix

LEVIP = dict(image_size=(7, 9), num_classes=5, dim=8, depth=1, heads=2, mlp_mult=1, dim_head=4)
CCT = dict(image_size=8, num_classes=5, embedding_dim=8, num_layers=2, num_heads=2)


def shapes(model, shape):
    return jax.eval_shape(model.init_with_output, jax.random.key(0), jnp.zeros(shape))


def test_a_distillation_head_gives_a_pair():
    model = vix.LeViP(**LEVIP, stages=2, num_distill_classes=3)
    (logits, distilled), _ = shapes(model, (2, 7, 9, 3))
    assert (logits.shape, distilled.shape) == ((2, 5), (2, 3))


@pytest.mark.parametrize(("cls", "factor"), [(vix.LeViP, 2), (vix.LeViN, 1)])
def test_heads_between_stages_are_the_published_ones(cls, factor):
    _, variables = shapes(cls(**LEVIP, stages=2), (1, 7, 9, 3))
    widths = [variables["params"][f"blocks_{i}"]["mixer"]["to_qkv"]["kernel"].shape[1]
              for i in range(3)]  # fmt: skip
    assert widths == [24, 24 * factor, 24]


def test_levix_stages_share_one_width():
    with pytest.raises(ValueError, match="share one width"):
        vix.LeViP(**{**LEVIP, "dim": (8, 16)}, stages=2)


def test_cvx_takes_any_image_size():
    small = {f"s{i}_{n}": v for i in (1, 2, 3) for n, v in (("emb_dim", 8), ("heads", 2))}
    model = vix.CvN(num_classes=5, s3_depth=1, num_landmarks=4, **small)
    assert shapes(model, (1, 32, 32, 3))[0].shape == (1, 5)
    assert shapes(model, (1, 40, 24, 3))[0].shape == (1, 5)


@pytest.mark.parametrize(("positions", "held"), [("learnable", 1), ("sine", 0), ("none", 0)])
def test_cct_positions(positions, held):
    model = vix.CCT(**CCT, positional_embedding=positions)
    logits, variables = shapes(model, (1, 8, 8, 3))
    assert logits.shape == (1, 5)
    assert sum("pos" in name for name in variables["params"]) == held


def test_cct_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="num_heads=3 does not divide embedding_dim=8"):
        vix.CCT(**{**CCT, "num_heads": 3})


def test_a_tokenizer_that_leaves_nothing_is_refused():
    with pytest.raises(ValueError, match="too small for this tokenizer"):
        vix.CCT(**{**CCT, "image_size": 2, "padding": 0})


def test_stochastic_depth_drops_whole_images():
    drop = vix.layers.DropPath(0.5)
    x = jnp.ones((64, 3, 2))
    out = drop.apply({}, x, train=True, rngs={"dropout": jax.random.key(0)})
    rows = out.reshape(64, -1)
    assert set(jnp.unique(rows).tolist()) == {0.0, 2.0}
    assert bool((rows == rows[:, :1]).all())
    assert bool((drop.apply({}, x) == x).all())
