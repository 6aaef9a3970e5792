"""Two images in one, and their targets in the same shares: mixup and CutMix, as in timm.

One share λ is drawn for a whole batch, from Beta(α, α), and the partner of each image is its
counterpart in the batch reversed. Images are `(b, h, w, c)` uint8 or float, also normalised ones,
targets `(b, classes)`, one-hot or soft; shapes and the images' dtype are kept.
"""

import jax
import jax.numpy as jnp


def mixup(
    images: jax.Array, targets: jax.Array, key: jax.Array, alpha: float
) -> tuple[jax.Array, jax.Array]:
    """Each image λ times plus its partner 1 - λ times (arXiv:1710.09412).

    Args:
        images: `(b, h, w, c)`; uint8 is rounded.
        targets: `(b, classes)` float.
        key: of λ.
        alpha: of Beta(α, α), above 0; 1 draws λ evenly from [0, 1].

    Returns:
        Images of the same shape and dtype, targets `(b, classes)` float32.

    Raises:
        ValueError: `alpha` not above 0, or targets that are not `(b, classes)`.
    """
    require_positive("alpha", alpha)
    require_soft(targets, len(images))
    share = jax.random.beta(key, alpha, alpha)
    mixed = mix(images.astype(jnp.float32), share)
    if not jnp.issubdtype(images.dtype, jnp.floating):
        mixed = jnp.round(mixed)
    return mixed.astype(images.dtype), mix(targets.astype(jnp.float32), share)


def cutmix(
    images: jax.Array, targets: jax.Array, key: jax.Array, alpha: float
) -> tuple[jax.Array, jax.Array]:
    """A rectangle of each image, at the same place in all, from its partner (arXiv:1905.04899).

    Its sides are √(1 - λ) of the image's, its middle is anywhere, and what is outside is cut off;
    the targets' share is the area that stays the image's own.

    Args:
        images: `(b, h, w, c)`.
        targets: `(b, classes)` float.
        key: of λ and the place.
        alpha: of Beta(α, α), above 0; 1 draws λ evenly from [0, 1].

    Returns:
        Images of the same shape and dtype, targets `(b, classes)` float32.

    Raises:
        ValueError: `alpha` not above 0, or targets that are not `(b, classes)`.
    """
    require_positive("alpha", alpha)
    require_soft(targets, len(images))
    _, h, w, _ = images.shape
    share_key, y_key, x_key = jax.random.split(key, 3)
    side = jnp.sqrt(1 - jax.random.beta(share_key, alpha, alpha))

    def pasted(key, n):
        half = (n * side).astype(jnp.int32) // 2
        place = jnp.arange(n) - jax.random.randint(key, (), 0, n)
        return (place >= -half) & (place < half)

    rows, columns = pasted(y_key, h), pasted(x_key, w)
    share = 1 - rows.sum() * columns.sum() / (h * w)
    inside = rows[:, None, None] & columns[:, None]
    return jnp.where(inside, images[::-1], images), mix(targets.astype(jnp.float32), share)


def mixup_or_cutmix(
    images: jax.Array,
    targets: jax.Array,
    key: jax.Array,
    mixup_alpha: float,
    cutmix_alpha: float,
) -> tuple[jax.Array, jax.Array]:
    """One of both for the whole batch, each with probability ½; with an alpha of 0 the other.

    Args:
        images: `(b, h, w, c)`.
        targets: `(b, classes)` float.
        key: of all draws.
        mixup_alpha: `alpha` of `mixup`; 0 to leave it out.
        cutmix_alpha: `alpha` of `cutmix`; 0 to leave it out.

    Returns:
        Images of the same shape and dtype, targets `(b, classes)` float32.

    Raises:
        ValueError: an alpha below 0, both 0, or targets that are not `(b, classes)`.
    """
    for name, alpha in (("mixup_alpha", mixup_alpha), ("cutmix_alpha", cutmix_alpha)):
        if alpha != 0:
            require_positive(name, alpha, "or 0 to leave it out")
    if mixup_alpha == cutmix_alpha == 0:
        raise ValueError("mixup_alpha=0 and cutmix_alpha=0: one of them must be above 0")
    if cutmix_alpha == 0:
        return mixup(images, targets, key, mixup_alpha)
    if mixup_alpha == 0:
        return cutmix(images, targets, key, cutmix_alpha)
    which_key, key = jax.random.split(key)
    return jax.lax.cond(
        jax.random.bernoulli(which_key),
        lambda: mixup(images, targets, key, mixup_alpha),
        lambda: cutmix(images, targets, key, cutmix_alpha),
    )


def mix(own: jax.Array, share: jax.Array) -> jax.Array:
    """`share` of a batch and the rest of the batch reversed."""
    return share * own + (1 - share) * own[::-1]


def require_positive(name: str, alpha: float, otherwise: str = "") -> None:
    """ValueError unless a parameter of a Beta distribution is one."""
    if not 0 < alpha < float("inf"):
        raise ValueError(f"{name}={alpha} must be above 0 {otherwise}".strip())


def require_soft(targets: jax.Array, b: int) -> None:
    """ValueError for targets that are class numbers or of another batch."""
    if targets.ndim != 2 or len(targets) != b:
        raise ValueError(
            f"targets of shape {targets.shape} must be ({b}, classes): one-hot or soft"
        )
