"""The usage that the READMEs of vit-pytorch and vit-flax show: arguments as there, NHWC images.

Shapes alone: nothing of these sizes is computed.
"""

import jax
import jax.numpy as jnp
import pytest

import vix_flax as vix

VIT = dict(
    image_size=256, patch_size=32, num_classes=1000, dim=1024, depth=6, heads=16, mlp_dim=2048,
    dropout=0.1, emb_dropout=0.1,
)  # fmt: skip
CROSS_VIT = dict(
    image_size=256, num_classes=1000, depth=4, sm_dim=192, sm_patch_size=16, sm_enc_depth=2,
    sm_enc_heads=8, sm_enc_mlp_dim=2048, lg_dim=384, lg_patch_size=64, lg_enc_depth=3,
    lg_enc_heads=8, lg_enc_mlp_dim=2048, cross_attn_depth=2, cross_attn_heads=8, dropout=0.1,
    emb_dropout=0.1,
)  # fmt: skip
CVT = {
    "num_classes": 1000, "dropout": 0.0,
    **{f"s{i}_{field}": value
       for i, values in enumerate(
           [(64, 7, 4, 3, 2, 1, 1, 4), (192, 3, 2, 3, 2, 3, 2, 4), (384, 3, 2, 3, 2, 4, 10, 4)], 1)
       for field, value in zip(
           ("emb_dim", "emb_kernel", "emb_stride", "proj_kernel", "kv_proj_stride", "heads",
            "depth", "mlp_mult"), values, strict=True)},
}  # fmt: skip
SNIPPETS = {
    "ViT": (vix.ViT, VIT, 256),
    "ViT of today": (vix.DualNormViT, VIT, 256),
    "DeepViT": (vix.DeepViT, VIT, 256),
    "CaiT": (vix.CaiT, {**VIT, "depth": 12, "cls_depth": 2, "layer_dropout": 0.05}, 256),
    "T2TViT": (
        vix.T2TViT,
        dict(dim=512, image_size=224, depth=5, heads=8, mlp_dim=512, num_classes=1000,
             t2t_layers=((7, 4), (3, 2), (3, 2))),
        224,
    ),
    "CrossViT": (vix.CrossViT, CROSS_VIT, 256),
    "PiT": (
        vix.PiT,
        dict(image_size=224, patch_size=14, dim=256, num_classes=1000, depth=(3, 3, 3), heads=16,
             mlp_dim=2048, dropout=0.1, emb_dropout=0.1),
        224,
    ),
    "LeViT": (
        vix.LeViT,
        dict(image_size=224, num_classes=1000, stages=3, dim=(256, 384, 512), depth=4,
             heads=(4, 6, 8), mlp_mult=2, dropout=0.1),
        224,
    ),
    "CvT": (vix.CvT, CVT, 224),
    "CrossFormer": (
        vix.CrossFormer,
        dict(num_classes=1000, dim=(64, 128, 256, 512), depth=(2, 2, 8, 2),
             global_window_size=(8, 4, 2, 1), local_window_size=7),
        224,
    ),
    "efficient, Nystromformer": (
        vix.EfficientViT,
        dict(dim=512, image_size=2048, patch_size=32, num_classes=1000,
             transformer=vix.Nystromformer(dim=512, depth=12, heads=8, num_landmarks=256)),
        2048,
    ),
    "efficient, Encoder": (
        vix.EfficientViT,
        dict(dim=512, image_size=224, patch_size=16, num_classes=1000,
             transformer=vix.Encoder(dim=512, depth=12, heads=8, ff_glu=True, residual_attn=True)),
        224,
    ),
}  # fmt: skip


SLOW = ("CrossFormer", "CrossViT")  # shapes that test_params has, too


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in SNIPPETS],
)
def test_snippet(name):
    cls, fields, size = SNIPPETS[name]
    v = cls(**fields)
    img = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    rngs = {
        "params": jax.random.PRNGKey(1),
        "dropout": jax.random.PRNGKey(2),
        "emb_dropout": jax.random.PRNGKey(3),
    }
    params = jax.eval_shape(v.init, rngs, img)
    preds = jax.eval_shape(lambda params, img: v.apply(params, img, rngs=rngs), params, img)
    assert preds.shape == (1, 1000)


def test_any_module_can_be_the_transformer():
    import flax.linen as nn

    class Mine(nn.Module):
        @nn.compact
        def __call__(self, x):
            return x + nn.Dense(x.shape[-1])(x)

    v = vix.EfficientViT(
        image_size=8, patch_size=4, num_classes=3, dim=8, transformer=Mine(), remat=True
    )
    img = jnp.ones((2, 8, 8, 3))
    assert v.apply(v.init(jax.random.key(0), img), img).shape == (2, 3)
    t2t = vix.T2TViT(
        image_size=8, num_classes=3, dim=8, t2t_layers=((3, 2), (3, 2)), transformer=Mine()
    )
    assert jax.eval_shape(t2t.init_with_output, jax.random.key(0), img)[0].shape == (2, 3)
