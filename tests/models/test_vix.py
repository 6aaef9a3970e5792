from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vix_flax import MLPMixer, ViX
from vix_flax.attention import Linear, Nystrom
from vix_flax.layers import ConvStem, PatchEmbed
from vix_flax.mixers import Fourier, TokenMlp
from vix_flax.models import Block, RenormBlock

rng = np.random.default_rng(0)
img = jnp.asarray(rng.normal(size=(2, 4, 6, 2)), jnp.float32)
SIZES = dict(
    image_size=(4, 6), patch_size=2, num_classes=5, dim=16, depth=1, heads=2, dim_head=8,
    mlp_dim=24, channels=2,
)  # fmt: skip


def tiny(cls=ViX, **fields):
    return cls(**(SIZES | fields))


def drawn(model):
    """Variables of the right shapes, without compiling `init`."""
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(model.init, jax.random.key(0), img)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype) / 4, shapes)


def run(model, img=img, variables=None):
    return jax.jit(model.apply)(drawn(model) if variables is None else variables, img)


def swap_patches(img):
    """The two rows of 2 × 2 patches exchanged."""
    return jnp.roll(img, 2, axis=1)


class TestImages:
    @pytest.mark.parametrize(
        ("shape", "message"),
        [
            ((4, 6, 2), r"\(b, 4, 6, 2\); got \(4, 6, 2\); add a batch axis"),
            ((1, 2, 4, 6), "looks like NCHW; transpose to NHWC"),
            ((1, 4, 6, 3), "build the model with channels=3"),
            ((1, 6, 4, 2), r"build the model with image_size=\(6, 4\)"),
        ],
    )
    def test_other_images_are_refused_with_a_remedy(self, shape, message):
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(tiny().init, jax.random.key(0), jnp.zeros(shape))

    def test_sizes_may_be_ints_pairs_or_lists(self):
        square = tiny(image_size=4)
        assert square.grid == tiny(image_size=(4, 4), patch_size=(2, 2)).grid == (2, 2)
        assert hash(tiny(image_size=[4, 6])) == hash(tiny())

    def test_patches_need_not_be_square(self):
        assert tiny(patch_size=(4, 3)).grid == (1, 2)


class TestPositions:
    @pytest.mark.parametrize(
        ("position", "sees_order"),
        [("none", False), ("learned", True), ("rotary", True), ("rotary_axial", True)],
    )
    def test_all_but_none_tell_patches_apart(self, position, sees_order):
        model = tiny(position=position)
        difference = np.abs(run(model, 3 * swap_patches(img)) - run(model, 3 * img)).max()
        assert difference > 1e-4 if sees_order else difference < 5e-6

    @pytest.mark.parametrize("position", ["none", "learned", "rotary", "rotary_axial"])
    def test_only_learned_positions_have_parameters(self, position):
        params = drawn(tiny(position=position))["params"]
        assert ("pos_embedding" in params) == (position == "learned")
        assert params["cls_token"].shape == (1, 1, 16)

    def test_reference_keeps_positions_that_are_never_read(self):
        class Published(ViX, kw_only=True):
            position: str = "rotary"
            unused_positions = True

        assert "pos_embedding" not in drawn(tiny(Published))["params"]
        assert drawn(tiny(Published, reference=True))["params"]["pos_embedding"].shape == (1, 7, 16)

    def test_learned_positions_are_added_behind_the_class_token(self):
        model = tiny()
        variables = drawn(model)
        params = variables["params"]
        tokens = model.apply(variables, img, method="tokens")
        embedding = params["embedding"]
        patches = PatchEmbed(dim=16, patch_size=(2, 2)).apply({"params": embedding}, img)
        positions = params["pos_embedding"]
        first = np.broadcast_to(params["cls_token"] + positions[:, :1], (2, 1, 16))
        np.testing.assert_allclose(tokens[:, :1], first, rtol=0, atol=1e-6)
        patches = patches.reshape(2, 6, 16) + positions[:, 1:]
        np.testing.assert_allclose(tokens[:, 1:], patches, rtol=0, atol=1e-6)


class TestPools:
    @pytest.mark.parametrize(("pool", "tokens"), [("cls", slice(0, 1)), ("mean", slice(None))])
    def test_features_are_the_class_token_or_the_mean_of_all(self, pool, tokens):
        model = tiny(pool=pool)
        x = jnp.asarray(rng.normal(size=(2, 7, 16)), jnp.float32)
        pooled = model.apply(drawn(model), x, method="pooled")
        np.testing.assert_allclose(pooled, x[:, tokens].mean(axis=1), rtol=0, atol=1e-6)

    def test_bfloat16_tokens_are_averaged_in_float32(self):
        tokens = jnp.ones((1, 1000, 16), jnp.bfloat16)
        model = tiny(pool="mean")
        pooled = model.apply(drawn(model), tokens, method="pooled")
        assert pooled.dtype == jnp.bfloat16
        np.testing.assert_array_equal(pooled.astype(jnp.float32), 1)


class TestBlocks:
    @pytest.mark.parametrize(("cls", "renorms"), [(Block, False), (RenormBlock, True)])
    def test_the_second_residual_is_the_stream_or_the_normed_stream(self, cls, renorms):
        x = 5 + jnp.asarray(rng.normal(size=(2, 6, 16)), jnp.float32)
        block = cls(mixer=TokenMlp(), mlp_dim=8)
        shapes = jax.eval_shape(block.init, jax.random.key(0), x)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)
        scale = {"scale": jnp.ones(16), "bias": jnp.zeros(16)}
        params = {**zeros["params"], "norm1": scale, "norm2": scale}
        out = block.apply({"params": params}, x)  # mixer and MLP give zero
        if renorms:
            np.testing.assert_allclose(out.mean(axis=-1), 0, atol=1e-5)
        else:
            np.testing.assert_array_equal(out, x)

    def test_remat_changes_no_value_and_no_gradient(self):
        variables = drawn(tiny())

        def gradients(model):
            objective = lambda variables: jnp.sin(model.apply(variables, img)).sum()
            return jax.jit(jax.value_and_grad(objective))(variables)

        ours, plain = gradients(tiny(remat=True)), gradients(tiny())
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), ours, plain)

    def test_depth_is_the_number_of_blocks(self):
        params = drawn(tiny(depth=3))["params"]
        assert {name for name in params if "block" in name} == {"blocks_0", "blocks_1", "blocks_2"}


class TestDropout:
    def test_of_the_embedding_it_acts_on_tokens_in_training_alone(self):
        model, rngs = tiny(emb_dropout=0.5), {"dropout": jax.random.key(0)}
        tokens = partial(model.apply, drawn(model), img, method="tokens")
        plain, dropped = tokens(), np.asarray(tokens(train=True, rngs=rngs))
        np.testing.assert_allclose((dropped == 0).mean(), 0.5, atol=0.1)
        np.testing.assert_allclose(dropped[dropped != 0], 2 * plain[dropped != 0], rtol=1e-5)

    def test_of_the_blocks_it_is_drawn_in_training_alone(self):
        model = tiny(dropout=0.5)
        variables = drawn(model)

        @jax.jit
        def train(key):
            return model.apply(variables, img, train=True, rngs={"dropout": key})

        assert np.abs(train(jax.random.key(0)) - train(jax.random.key(1))).max() > 1e-3
        np.testing.assert_allclose(run(model, variables=variables), run(tiny()), atol=1e-6)

    @pytest.mark.parametrize(
        ("drops", "out", "weights"),
        [("nothing", 0, 0), ("output", 0.25, 0), ("weights", 0, 0.25)],
    )
    def test_the_attention_drops_what_its_family_says(self, drops, out, weights):
        class Family(ViX, kw_only=True):
            attention_drops = drops

        model = tiny(Family, dropout=0.25)
        assert (model.out_dropout, model.attention_dropout) == (out, weights)


class TestParts:
    def test_attention_options_are_fields_of_the_attention(self):
        options = {"num_landmarks": 3, "pinv_iterations": 1, "residual_conv_kernel": 0}
        model = tiny(attention=Nystrom, attention_options=options)
        assert model == tiny(attention=Nystrom, attention_options=dict(options))
        assert hash(model) == hash(tiny(attention=Nystrom, attention_options=dict(options)))
        assert model != tiny(attention=Nystrom)
        same = partial(Nystrom, **options)
        np.testing.assert_array_equal(run(model), run(tiny(attention=same)))

    def test_reference_reaches_the_attention(self):
        options = {"num_landmarks": 4, "pinv_iterations": 1, "residual_conv_kernel": 0}
        quirky, right = (
            tiny(attention=Nystrom, attention_options=options, reference=reference)
            for reference in (True, False)
        )
        assert np.abs(run(quirky) - run(right)).max() > 1e-4

    def test_dtype_reaches_every_part_and_logits_are_float32(self):
        model = tiny(dtype=jnp.bfloat16, num_classes=0)
        features = jax.eval_shape(model.apply, drawn(model), img)
        assert features.dtype == jnp.bfloat16
        logits = jax.eval_shape(tiny(dtype=jnp.bfloat16).apply, drawn(tiny()), img)
        assert logits.dtype == jnp.float32

    def test_a_stem_makes_a_token_of_every_pixel(self):
        assert tiny(embed=ConvStem, patch_size=1).grid == (4, 6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(pool="max"), "pool='max' is unknown here; use 'cls' or 'mean'"),
        (dict(position="rotery"), "position='rotery' is unknown here; did you mean 'rotary'"),
        (dict(position="rotary", dim_head=7), "dim_head=7 .* must be a multiple of 2"),
        (dict(position="rotary_axial", dim_head=6), "dim_head=6 .* must be a multiple of 4"),
        (dict(position="rotary", mixer=Fourier), "'rotary' needs attention; Fourier has no"),
        (dict(position="rotary", mixer=TokenMlp), "'rotary' needs attention; TokenMlp has no"),
        (dict(patch_size=3), r"patch_size=\(3, 3\) does not divide image_size=\(4, 6\)"),
        (dict(patch_size=(2, 4)), r"patch_size=\(2, 4\) does not divide image_size=\(4, 6\)"),
        (dict(embed=ConvStem), r"patch_size=\(2, 2\) does not work with a convolutional stem"),
        (dict(image_size="4"), "image_size='4' must be a positive int or"),
        (dict(patch_size=0), "patch_size=0 must be a positive int or"),
        (dict(dim=0), "dim=0 must be a positive int"),
        (dict(depth=-1), "depth=-1 must be a positive int"),
        (dict(heads=1.5), "heads=1.5 must be a positive int"),
        (dict(dim_head=0), "dim_head=0 must be a positive int"),
        (dict(mlp_dim="8"), "mlp_dim='8' must be a positive int"),
        (dict(channels=0), "channels=0 must be a positive int"),
        (dict(num_classes=-1), "num_classes=-1 must be an int, 0 for features"),
        (dict(num_classes=2.0), "num_classes=2.0 must be an int, 0 for features"),
        (dict(dropout=1.0), "dropout=1.0 must be at least 0 and below 1"),
        (dict(emb_dropout=-0.1), "emb_dropout=-0.1 must be at least 0 and below 1"),
        (
            dict(attention=Nystrom, attention_options={"num_landmark": 3}),
            "Nystrom has no field 'num_landmark'; did you mean 'num_landmarks'",
        ),
        (dict(attention=Linear, attention_options={"zzz": 1}), "there are: epsilon, dtype"),
        (dict(attention="nystrom"), "'nystrom' is not a flax.linen Module class"),
        (dict(attention=Linear()), r"Linear\(…\) is an instance: give the class"),
        (dict(attention_options=3), "attention_options=3 must be a mapping"),
        (dict(dtype="int32"), "dtype='int32' must be a floating-point type"),
        (dict(dtype="float33"), "dtype='float33' must be a floating-point type"),
        (dict(depth=True), "depth=True must be a positive int"),
        (dict(attention=Nystrom, attention_options={"num_landmarks": 0}), "num_landmarks=0"),
    ],
)
def test_fields_that_cannot_work_together(fields, message):
    with pytest.raises(ValueError, match=message):
        tiny(**fields)


def test_without_a_class_token_there_is_only_the_mean():
    with pytest.raises(ValueError, match="pool='cls' is unknown here; use 'mean'"):
        MLPMixer(image_size=4, patch_size=2, num_classes=3, dim=8, depth=1, pool="cls")


class TestStochasticDepth:
    MODEL = tiny(depth=3, stochastic_depth=0.5)

    def test_the_rate_grows_with_depth(self):
        blocks = self.MODEL.bind(drawn(self.MODEL)).blocks
        assert [block.drop_path for block in blocks] == [0.0, 0.25, 0.5]

    def test_it_acts_in_training_alone(self):
        variables = drawn(self.MODEL)
        plain = run(tiny(depth=3), variables=variables)
        np.testing.assert_array_equal(run(self.MODEL, variables=variables), plain)
        train = jax.jit(
            lambda key: self.MODEL.apply(variables, img, train=True, rngs={"dropout": key})
        )
        outs = [train(jax.random.key(i)) for i in range(4)]
        assert max(np.abs(out - outs[0]).max() for out in outs) > 1e-3
