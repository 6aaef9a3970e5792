"""Masked patch prediction: guess the mean colour of patches that the model does not see.

Dosovitskiy et al. 2020 (ViT), arXiv:2010.11929, appendix B.1.2. No labels are needed.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from einops import rearrange
from flax import linen as nn

from vix_flax.checks import require_positive_ints, require_rates
from vix_flax.layers import Dense, PatchEmbed
from vix_flax.models import ViX
from vix_flax.models.image import pair
from vix_flax.wrappers.unwrap import unwrapped


class Draws(NamedTuple):
    """All that is random about masking, for b images of n patches each."""

    mask: jax.Array  # (b, n) in [0, 1): the k largest are masked
    random_patch: jax.Array  # (b, n) in [0, 1): whether a masked patch becomes another
    random_index: jax.Array  # (b, n) int: which
    replace: jax.Array  # (b, n) in [0, 1): whether it becomes the mask token


def draw(key: jax.Array, b: int, n: int) -> Draws:
    """Draws for masking, from one key."""
    keys = jax.random.split(key, 4)
    uniform = [jax.random.uniform(k, (b, n)) for k in keys[:3]]
    return Draws(uniform[0], uniform[1], jax.random.randint(keys[3], (b, n), 0, n), uniform[2])


def mask_patches(
    patches: jax.Array,
    mask_token: jax.Array,
    draws: Draws,
    mask_prob: float,
    replace_prob: float,
    random_patch_prob: float,
) -> tuple[jax.Array, jax.Array]:
    """Patches `(b, n, p·q·c)` with some replaced, and which are masked, `(b, n)` bool.

    ⌈mask_prob · n⌉ patches an image are masked. Of these a share of `random_patch_prob /
    (1 − replace_prob)` becomes a random patch of the same image, then a share of `replace_prob`
    the mask token; the rest is left as it is.
    """
    n = patches.shape[1]
    _, chosen = jax.lax.top_k(draws.mask, math.ceil(mask_prob * n))
    masked = (
        jnp.zeros(draws.mask.shape, bool).at[jnp.arange(len(chosen))[:, None], chosen].set(True)
    )
    out = patches
    if random_patch_prob > 0:
        threshold = random_patch_prob / (1 - replace_prob)
        other = jnp.take_along_axis(patches, draws.random_index[..., None], axis=1)
        becomes_other = masked & (draws.random_patch < threshold)
        out = jnp.where(becomes_other[..., None], other, out)
    becomes_token = masked & (draws.replace < replace_prob)
    return jnp.where(becomes_token[..., None], mask_token, out), masked


def colour_labels(patches: jax.Array, channels: int, bits: int, max_pixel_val: float) -> jax.Array:
    """The bin of each patch's mean colour, `(b, n, p·q·c) -> (b, n)` int.

    Each channel has 2^bits equal bins up to `max_pixel_val`; the first channel counts least.
    """
    colours = rearrange(patches, "b n (p c) -> b n p c", c=channels)
    mean = jnp.minimum(colours, max_pixel_val).mean(axis=2)
    edges = np.arange(1, 2**bits) * (max_pixel_val / 2**bits)
    bins = jnp.searchsorted(jnp.asarray(edges, mean.dtype), mean, side="left")
    return (bins * (2**bits) ** jnp.arange(channels)).sum(axis=-1)


class MPP(nn.Module, kw_only=True):
    """The loss of guessing masked patches: `img (b, H, W, C) -> ()`, in nats.

    Masking draws from the stream `mask`. The transformer's parameters are `params["transformer"]`,
    as the plain model has them. Pixels are to be in [0, max_pixel_val], or normalised by `mean` and
    `std`, which are then undone for the labels.

    Attributes:
        transformer: a ViT on patches.
        patch_size, dim: must be the transformer's.
        output_channel_bits: bits of a colour's bin.
        channels: of the image.
        max_pixel_val: brighter pixels count as this bright.
        mask_prob, replace_prob, random_patch_prob: see `mask_patches`.
        mean, std: of each channel, of the normalisation that images have been through.
    """

    transformer: nn.Module
    patch_size: int | tuple[int, int]
    dim: int
    output_channel_bits: int = 3
    channels: int = 3
    max_pixel_val: float = 1.0
    mask_prob: float = 0.15
    replace_prob: float = 0.5
    random_patch_prob: float = 0.5
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None

    def __post_init__(self):
        model = self.transformer
        if not (isinstance(model, ViX) and issubclass(model.embed, PatchEmbed)):
            raise ValueError(f"transformer={type(model).__name__} must be a ViT on patches")
        sizes = [pair("patch_size", size) for size in (self.patch_size, model.patch_size)]
        for field, ours, theirs in (
            ("patch_size", *sizes),
            ("dim", self.dim, model.dim),
            ("channels", self.channels, model.channels),
        ):
            if ours != theirs:
                raise ValueError(f"{field}={ours} must be the transformer's, {theirs}")
        require_positive_ints(self, "output_channel_bits")
        require_rates(self, "replace_prob", "random_patch_prob")
        if not 0 < self.mask_prob <= 1:
            raise ValueError(f"mask_prob={self.mask_prob!r} must be above 0 and at most 1")
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std go together: give both or none")
        for field in ("mean", "std"):
            value = getattr(self, field)
            setattr(self, field, None if value is None else tuple(map(float, value)))
        super().__post_init__()

    @nn.compact
    def __call__(
        self, img: jax.Array, *, train: bool = False, draws: Draws | None = None
    ) -> jax.Array:
        """The mean cross-entropy over masked patches; `draws` instead of the stream `mask`."""
        if self.is_initializing():
            self.transformer(img)  # the head, too, so that the plain model finds all it has
        p, q = pair("patch_size", self.patch_size)
        patches = rearrange(img, "b (h p) (w q) c -> b (h w) (p q c)", p=p, q=q)
        token = self.param("mask_token", nn.initializers.normal(1.0), (1, 1, patches.shape[-1]))
        if draws is None:
            draws = draw(self.make_rng("mask"), *patches.shape[:2])
        rates = (self.mask_prob, self.replace_prob, self.random_patch_prob)
        seen, masked = mask_patches(patches, token, draws, *rates)
        seen_img = rearrange(
            seen,
            "b (h w) (p q c) -> b (h p) (w q) c",
            h=img.shape[1] // p,
            p=p,
            q=q,
        )
        encoded = self.transformer.encode(
            self.transformer.tokens(seen_img, train=train), train=train
        )
        logits = Dense(2 ** (self.output_channel_bits * self.channels), name="to_bits")(encoded)
        logits = logits[:, -patches.shape[1] :].astype(jnp.float32)
        labels = self.labels(patches)
        self.sow("intermediates", "mpp_logits", logits)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return (losses * masked).sum() / masked.sum()

    def labels(self, patches: jax.Array) -> jax.Array:
        """What is to be guessed, `(b, n, p·q·c) -> (b, n)`: from the image before masking."""
        if self.mean is not None:
            per_pixel = patches.shape[-1] // self.channels
            mean, std = (np.tile(np.asarray(x), per_pixel) for x in (self.mean, self.std))
            patches = patches * std + mean
        return colour_labels(patches, self.channels, self.output_channel_bits, self.max_pixel_val)

    def to_model(self, variables: dict) -> tuple[nn.Module, dict]:
        """The plain model and its variables, out of this wrapper's."""
        return self.transformer, unwrapped(variables, "transformer")
