"""Parameter counts of the wrappers, as measured on the published code; shapes only."""

import jax
import jax.numpy as jnp
import pytest

import vix_flax as vix

README = dict(
    image_size=256, patch_size=32, num_classes=1000, dim=1024, depth=6, heads=8, mlp_dim=2048
)
CIFAR = dict(
    image_size=32, patch_size=4, num_classes=10, dim=128, depth=6, heads=4, dim_head=32, mlp_dim=256
)
MEAN = dict(
    image_size=32, patch_size=4, num_classes=10, dim=192, depth=9, heads=3, mlp_dim=768, pool="mean"
)


def distill(fields):
    wrapper = vix.DistillWrapper(student=vix.DistillableViT(**fields))
    classes = fields["num_classes"]
    return wrapper, (jnp.zeros(2, int),), {"teacher_logits": jnp.zeros((2, classes))}


def mpp(fields):
    model = vix.DualNormViT(**fields)
    wrapper = vix.MPP(transformer=model, patch_size=model.patch_size, dim=model.dim)
    return wrapper, (), {}


def byol(fields, **form):
    image = jnp.zeros((2, fields["image_size"], fields["image_size"], 3))
    return vix.BYOL(net=vix.DualNormViT(**fields), **form), (image,), {}


@pytest.mark.parametrize(
    ("make", "fields", "count"),
    [
        (distill, README, 43_073_488),
        (distill, CIFAR, 810_612),
        (distill, MEAN, 4_025_204),
        (mpp, README, 42_575_336),
        (mpp, CIFAR, 875_290),
        (mpp, MEAN, 4_121_946),
        (byol, README, 49_412_584),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_count(make, fields, count):
    wrapper, more, given = make(fields)
    image = jnp.zeros((2, fields["image_size"], fields["image_size"], 3))
    rngs = {"params": jax.random.key(0), "mask": jax.random.key(1)}
    shapes = jax.eval_shape(lambda: wrapper.init(rngs, image, *more, **given))
    assert vix.count_params(shapes) == count
