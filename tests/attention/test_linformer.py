import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vix_flax.attention import Linformer, Softmax


def qkv(n=7, m=9, kv_heads=2, seed=0):
    rng = np.random.default_rng(seed)
    shapes = (2, n, 2, 8), (2, m, kv_heads, 8), (2, m, kv_heads, 5)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


@pytest.mark.parametrize(("kv_heads", "share_kv"), [(1, True), (2, False)])
def test_it_is_softmax_over_projected_keys_and_values(kv_heads, share_kv):
    q, k, v = qkv(kv_heads=kv_heads)
    core = Linformer(k=4, share_kv=share_kv)
    rng = np.random.default_rng(1)
    params = {name: rng.normal(size=(9, 4)).astype("f4") for name in ("proj_k", "proj_v")}
    out = jax.jit(core.apply)({"params": params}, q, k, v)
    project_values = params["proj_k" if share_kv else "proj_v"]
    k = jnp.einsum("bmhd,mk->bkhd", k, params["proj_k"])
    v = jnp.einsum("bmhe,mk->bkhe", v, project_values)
    exact = jax.jit(Softmax().apply)({}, q, k, v)
    np.testing.assert_allclose(out, exact, rtol=0, atol=2e-6)


def test_identity_projections_make_it_softmax():
    inputs = qkv()
    out = jax.jit(Linformer(k=9).apply)({"params": {"proj_k": jnp.eye(9)}}, *inputs)
    np.testing.assert_allclose(out, jax.jit(Softmax().apply)({}, *inputs), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("share_kv", "names"), [(True, {"proj_k"}), (False, {"proj_k", "proj_v"})])
def test_projections_are_tokens_by_k_within_their_bound(share_kv, names):
    init = jax.jit(Linformer(k=4, share_kv=share_kv).init)
    params = init(jax.random.key(0), *qkv())["params"]
    assert params.keys() == names
    for projection in params.values():
        assert projection.shape == (9, 4)
        assert 0.4 < np.abs(projection).max() <= 4**-0.5


def test_dropout_acts_on_the_weights_and_keeps_the_mean():
    q, k, v = qkv(kv_heads=1)
    core = Linformer(k=4, attention_dropout=0.2)
    variables = {"params": {"proj_k": np.eye(9, 4)}}
    exact = jax.jit(core.apply)(variables, q, k, v)

    @jax.jit
    @jax.vmap
    def train(key):
        return core.apply(variables, q, k, v, train=True, rngs={"dropout": key})

    drawn = train(jax.random.split(jax.random.key(1), 1000))
    assert np.abs(drawn[0] - exact).max() > 0.05
    np.testing.assert_allclose(drawn.mean(axis=0), exact, rtol=0, atol=0.1)


def test_the_token_count_is_fixed_at_init():
    core = Linformer(k=4)
    variables = {"params": {"proj_k": jnp.ones((9, 4))}}
    assert jax.eval_shape(core.apply, variables, *qkv(n=3, m=9)).shape == (2, 3, 2, 5)
    with pytest.raises(ValueError, match="initialised for 9 tokens and got 10"):
        jax.eval_shape(core.apply, variables, *qkv(m=10))


def test_at_least_one_row_is_needed():
    with pytest.raises(ValueError, match="k=0 must be a positive int"):
        Linformer(k=0)
