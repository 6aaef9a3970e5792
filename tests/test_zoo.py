"""What every model of `list_models()` promises."""

import pickle
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import (
    BATCH,
    assert_gradients_reach_every_parameter,
    assert_images_are_independent,
    compiled_once,
    distinct_names,
    tiny,
)

import vix_flax as vix
from vix_flax.presets import PRESETS

# Stems and rotary positions together: each is tested alone, and the numbers are in test_golden, as
# are those of the models that take longest to compile.
SLOW = [
    *vix.list_models("hybrid_*_rope"), "hybrid_vil", "hybrid_vip", "hybrid_vit", "hybrid_mlp_mixer",
    "hybrid_vin_imagenet", "vil_rope", "vip_rope", "vin_rope",
    "crossformer_cifar", "crossformer", "cross_vit_cifar", "cross_vit", "deepvit_cifar", "deepvit",
    "nanovit_linear", "levip", "ccp", "cvp",
]  # fmt: skip

# Between them these have all parts: they are compiled in bfloat16, too.
IN_BFLOAT16 = ("vin", "vip", "vil", "fnet", "hybrid_vin", "mlp_mixer", "cct", "cait", "levit",
               "cvt", "pit")  # fmt: skip


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=pytest.mark.slow if name in SLOW else ())
        for name in distinct_names()
    ],
)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def compiled(name):
    return compiled_once(tiny(name))


def test_logits_have_a_row_an_image_and_are_float32(compiled):
    assert compiled.logits.shape == (BATCH, 5)
    assert compiled.logits.dtype == jnp.float32
    assert np.isfinite(compiled.logits).all()


def test_logits_do_not_depend_on_batch_mates(compiled):
    assert_images_are_independent(compiled)


def test_gradients_are_finite_and_reach_every_parameter(compiled):
    assert_gradients_reach_every_parameter(compiled)


def test_bfloat16_stays_close_and_keeps_float32_parameters(name, compiled):
    model = tiny(name, dtype=jnp.bfloat16)
    shapes = jax.eval_shape(model.init, jax.random.key(1), compiled.img)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    out = jax.eval_shape(model.apply, compiled.variables, compiled.img)
    assert out.dtype == jnp.float32
    if name not in IN_BFLOAT16:
        return
    logits = jax.jit(model.apply)(compiled.variables, compiled.img)
    scale = np.abs(compiled.logits).max()
    np.testing.assert_allclose(logits, compiled.logits, rtol=0, atol=0.06 * scale)


def test_training_mode_needs_an_rng_and_uses_it(compiled):
    def logits(seed):
        rngs = {"dropout": jax.random.key(seed)}
        return jax.eval_shape(
            lambda: compiled.model.apply(
                compiled.variables, compiled.img, train=True, rngs=rngs, mutable=["batch_stats"]
            )
        )[0]

    assert logits(0).shape == compiled.logits.shape
    with pytest.raises(Exception, match="dropout"):
        jax.eval_shape(
            lambda: compiled.model.apply(
                compiled.variables, compiled.img, train=True, mutable=["batch_stats"]
            )
        )


def test_without_classes_features_come_out(name, compiled):
    model = tiny(name, num_classes=0)
    out, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), compiled.img)
    assert out.shape == (BATCH, model.num_features)


def test_the_four_verbs_chain_to_the_call(compiled):
    def chain(model, img):
        features = model.pooled(model.encode(model.tokens(img)))
        return features, model.head(features)

    features, logits = jax.eval_shape(
        lambda v, x: compiled.model.apply(v, x, method=chain), compiled.variables, compiled.img
    )
    assert features.shape == (BATCH, compiled.model.num_features)
    assert logits.shape == compiled.logits.shape


def test_remat_changes_nothing_but_memory(name, compiled):
    model = tiny(name, remat=True)
    shapes = jax.eval_shape(model.init, jax.random.key(1), compiled.img)
    assert jax.tree.structure(shapes) == jax.tree.structure(compiled.variables)
    assert "remat" in str(jax.make_jaxpr(model.apply)(compiled.variables, compiled.img))


def test_equal_models_compare_hash_and_pickle(name, compiled):
    twin = tiny(name)
    assert twin == compiled.model
    assert hash(twin) == hash(compiled.model)
    assert pickle.loads(pickle.dumps(twin)) == compiled.model
    assert twin != tiny(name, num_classes=6)


def test_equal_models_are_traced_once(name, compiled):
    traces = []

    def features(model, variables, img):
        traces.append(model)
        return model.apply(variables, img, method="tokens")

    step = jax.jit(features, static_argnums=0)
    for model in (compiled.model, tiny(name)):
        step(model, compiled.variables, compiled.img)
    assert len(traces) == 1


def test_fields_are_keywords_and_the_paper_is_named(name):
    cls = PRESETS[name][0]
    with pytest.raises(TypeError, match="positional"):
        cls(32)
    assert re.search(r"arXiv:\d{4}\.\d{4,5}", cls.__doc__)


def test_summary_adds_up(compiled):
    whole, *parts = vix.summarize(compiled.model, depth=1)
    assert whole.params == vix.count_params(compiled.variables)
    assert whole.flops == sum(part.flops for part in parts) > 0


@pytest.mark.parametrize("name", vix.list_models())
def test_presets_build_at_their_published_size(name):
    assert vix.create_model(name).num_classes in (10, 200, 1000)


@pytest.mark.parametrize("make_key", [jax.random.key, jax.random.PRNGKey])
def test_the_design_snippet(make_key):
    v = vix.ViN(
        image_size=8, patch_size=2, num_classes=10, dim=16, depth=1, heads=4, mlp_dim=16,
        num_landmarks=16, pool="cls", channels=3, dropout=0.0, emb_dropout=0.0, dim_head=8,
    )  # fmt: skip
    img = jnp.ones((1, 8, 8, 3))
    rngs = {"params": make_key(1), "dropout": make_key(2), "emb_dropout": make_key(3)}
    params = v.init(rngs, img)
    logits = v.apply(params, img, rngs=rngs)
    assert logits.shape == (1, 10)
    np.testing.assert_array_equal(logits, v.apply(params, img))
    logits, updates = v.apply(
        params, img, train=True, rngs={"dropout": make_key(0)}, mutable=["batch_stats"]
    )
    assert not updates


def test_list_models_matches_patterns():
    assert vix.list_models("nano*") == ["nanovit", "nanovit_linear", "nanovit_linear_conv"]
    assert set(vix.list_models()) == PRESETS.keys()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(name="vinn"), "unknown model 'vinn'; did you mean 'vin'"),
        (dict(name="vin", num_landmark=3), "vin has no field 'num_landmark'; did you mean 'num_l"),
        (dict(name="vit", attention="nystorm"), "unknown attention 'nystorm'; did you mean 'nyst"),
        (dict(name="vit", embed="pach"), "unknown embed 'pach'; did you mean 'patch'"),
        (dict(name="vit", num_landmarks=3), "vit has no field 'num_landmarks'"),
    ],
)
def test_create_model_suggests(fields, message):
    with pytest.raises(ValueError, match=message):
        vix.create_model(fields.pop("name"), **fields)


def test_an_attention_option_finds_its_attention():
    model = vix.create_model("vit", attention="nystrom", num_landmarks=16)
    assert model.attention is vix.Nystrom
    assert model.attention_options["num_landmarks"] == 16
