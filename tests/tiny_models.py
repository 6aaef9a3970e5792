"""Every preset small enough to compile in a second, and what is asked of each."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np

import vix_flax as vix
from vix_flax.layers import field_names
from vix_flax.presets import PRESETS

BATCH = 3
# Fields of a model that takes a second to compile. Those that a model does not have are left out.
SMALL = dict(
    image_size=(8, 12), patch_size=2, num_classes=5, dim=16, depth=1, heads=2, dim_head=8,
    mlp_dim=24, k=7, num_landmarks=5, channels=2, dropout=0.1, emb_dropout=0.1, embedding_dim=16,
    num_layers=1, num_heads=2, mlp_ratio=1.5, dropout_rate=0.1, mlp_mult=2, stages=2,
)  # fmt: skip
STAGES = {f"s{i}_{name}": 16 if name == "emb_dim" else 2 for i in (1, 2, 3)
          for name in ("emb_dim", "heads", "mlp_mult")}  # fmt: skip
# What single families need instead; None leaves a field at the class's default.
SMALL_OF = {
    vix.CvX: {**STAGES, "s3_depth": 1},
    vix.CvT: {**STAGES, "s3_depth": 1, "s1_emb_kernel": 3, "s1_emb_stride": 1, "s2_emb_stride": 1,
              "s2_depth": 1, "s3_emb_stride": 1},
    vix.LeViT: dict(image_size=(24, 40), heads=1, dim=(16, 24), dim_key=4, dim_value=6),
    vix.LeViX: dict(image_size=(8, 12), heads=2, dim=16),
    vix.CaiT: dict(cls_depth=1),
    vix.PiT: dict(patch_size=4, depth=(1, 1)),
    vix.T2TViT: dict(patch_size=1, t2t_layers=((3, 2), (3, 1))),
    vix.CrossViT: dict(sm_dim=16, lg_dim=12, sm_patch_size=2, lg_patch_size=4, cross_attn_depth=1,
                       **{f"{b}_enc_{n}": v for b in ("sm", "lg") for n, v in
                          (("depth", 1), ("heads", 2), ("mlp_dim", 24), ("dim_head", 8))},
                       cross_attn_heads=2, cross_attn_dim_head=8),
    vix.CrossFormer: dict(dim=(16, 16, 16, 24), dim_head=8, local_window_size=2,
                          global_window_size=2,
                          cross_embed_kernel_sizes=((2, 4), (1, 3), (1, 3), (1, 3)),
                          cross_embed_strides=(2, 1, 1, 1), attn_dropout=0.1),
    vix.EfficientViT: dict(depth=None, heads=None, mlp_dim=None, dim_head=None, dropout=None,
                           ),
}  # fmt: skip
ENCODERS = {
    vix.Nystromformer: vix.Nystromformer(dim=16, depth=1, heads=2, dim_head=8, num_landmarks=5),
    vix.Encoder: vix.Encoder(dim=16, depth=2, heads=2, attn_dim_head=8, ff_glu=True,
                             residual_attn=True),
}  # fmt: skip
# A softmax does not feel what all of its scores have in common.
INVARIANT = re.compile("norm_k'.*'bias|position_bias'.*'dense4'.*'bias")


def tiny(name, **overrides):
    """The preset, small enough to compile in a second."""
    cls, preset = PRESETS[name]
    one_pixel_tokens = (name.startswith("hybrid") and "imagenet" not in name) or name.endswith(
        "conv"
    )
    small = {**SMALL, **({"image_size": (4, 6), "patch_size": 1} if one_pixel_tokens else {})}
    for family in reversed(cls.__mro__):
        small.update(SMALL_OF.get(family, {}))
    known = {k: v for k, v in small.items() if k in field_names(cls) and v is not None}
    if "transformer" in preset:
        known["transformer"] = ENCODERS[type(preset["transformer"])]
    return vix.create_model(name, **known | overrides)


def images(model, seed=0):
    height, width = getattr(model, "image_size", (8, 12))
    return jax.random.normal(jax.random.key(seed), (BATCH, height, width, model.channels))


class Compiled:
    """A tiny model, its variables, and one compiled call: (logits, parameter gradients).

    Variables are drawn here, not by `init`: compiling that costs as much as the call, and some
    parameters start at 0 and hide what is behind them.
    """

    def __init__(self, model):
        self.model = model
        self.img = images(self.model)
        self.variables = self.drawn()
        self.traces = 0

        @jax.jit
        def call(params, img):
            self.traces += 1

            def objective(params):
                logits = self.model.apply({**self.variables, "params": params}, img)
                return (
                    logits * jnp.arange(1.0, 1 + logits.size).reshape(logits.shape)
                ).sum(), logits

            return jax.grad(objective, has_aux=True)(params)

        self.call = call
        self.grads, self.logits = call(self.variables["params"], self.img)

    def drawn(self):
        rng = np.random.default_rng(0)

        def draw(path, leaf):
            kind = path[-1].key
            noise = rng.normal(size=leaf.shape)
            if kind in ("scale", "norm_scale", "var"):
                noise = 1 + 0.1 * np.clip(noise, -3, 3)
            elif kind == "kernel":
                noise *= 0.7 * np.prod(leaf.shape[:-1]) ** -0.5
            elif kind in ("bias", "norm_bias", "mean"):
                noise *= 0.1
            return jnp.asarray(noise, leaf.dtype)

        shapes = jax.eval_shape(self.model.init, jax.random.key(1), self.img)
        return jax.tree_util.tree_map_with_path(draw, shapes)


@functools.cache
def compiled_once(model):
    return Compiled(model)


def distinct_names():
    """All presets but those whose tiny model is another's: at README and at CIFAR size."""
    names = {}
    for name in vix.list_models():
        names.setdefault(tiny(name), name)
    return list(names.values())


def assert_images_are_independent(compiled):
    others = images(compiled.model, seed=7) * 3
    mixed = compiled.img.at[1:].set(others[1:])
    _, logits = compiled.call(compiled.variables["params"], mixed)
    assert compiled.traces == 1
    scale = max(1, np.abs(compiled.logits).max())
    np.testing.assert_allclose(logits[0], compiled.logits[0], rtol=0, atol=2e-6 * scale)
    assert np.abs(logits[1:] - compiled.logits[1:]).max() > 1e-3


def assert_gradients_reach_every_parameter(compiled):
    for path, grad in jax.tree_util.tree_leaves_with_path(compiled.grads):
        where = jax.tree_util.keystr(path)
        assert np.isfinite(grad).all(), where
        assert np.abs(grad).max() > 0 or INVARIANT.search(where), where
