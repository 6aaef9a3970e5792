"""A batch in parts; on a CPU as many as keep what a backward pass needs in its caches.

Of 32 images at 1,025 tokens a training step keeps one or two GiB between its two passes. A CPU then
waits for memory, and for the pages that it must be given anew at every step: image by image on each
core the same step takes half to three quarters of the time (`benchmarks/`). GPUs and TPUs hide
both, and are best left to see the whole batch.

Small parts are good for caches, but the products of a part are best of some hundred tokens: of one
image of 65, with which a part of CaiT's batch would be smallest, they take a third more time.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vix_flax.array_bytes import bytes_of

KEPT_BYTES = 5 * 2**20  # of a part, on each of several devices
PAIRS_BYTES = 20 * 2**20  # of a part of two images: below, one would be too few
# One device by itself cuts each product for its threads, and needs larger ones.
KEPT_ALONE_BYTES, PAIRS_ALONE_BYTES = 20 * 2**20, 40 * 2**20


def mean_of_images(apply_fn: Callable, objective: Callable) -> bool:
    """Whether the loss of a batch is the mean of its images', if what BatchNorm reads of the batch
    is given: not where the published quirks of a `reference` model read batch mates, nor for a
    module with a loss of its own.
    """
    reads_mates = getattr(getattr(apply_fn, "__self__", None), "reference", False)
    return getattr(objective, "mean_over_images", False) and not reads_mates


def forward(loss_of: Callable, params: Any, extra: Any, *given: Any) -> tuple[Callable, int]:
    """The way to the loss: a function that goes back and gives what `gradient_of` does, and how
    many bytes wait for it, apart from these arguments.
    """
    of_params = lambda params: loss_of(params, extra, *given)
    loss, backward, (metrics, updates) = jax.vjp(of_params, params, has_aux=True)
    known = {id(x) for x in jax.tree.leaves((params, extra, given))}
    kept = [x for x in jax.tree.leaves(backward) if id(x) not in known]

    def finish():
        (grads,) = backward(jnp.ones_like(loss))
        return (grads, {"loss": loss, **metrics}), {**extra, **updates}

    return finish, sum(map(bytes_of, kept))


def gradient_of(loss_of: Callable) -> Callable:
    """A function of a batch, all of which is seen at once.

    Args:
        loss_of: (params, extra, images, labels, key, context) → (loss, (metrics, updates)), the
            updates being those of `extra`.

    Returns:
        Of the same arguments, ((gradient, metrics with `loss`), extra).
    """

    def gradient(*given):
        finish, _ = forward(loss_of, *given)
        return finish()

    return gradient


def gradient_in_parts(gradient: Callable, parts: int) -> Callable:
    """`gradient`, as `gradient_of` returns it, of parts of a batch, one after the other: means over
    them, and collections as the last part leaves them. `parts` divides the number of images.
    """
    if parts == 1:
        return gradient

    def of_all(params, extra, images, labels, key, context):
        def part(carried, given):
            grads, extra = carried
            (more, metrics), extra = gradient(params, extra, *given, context)
            return (jax.tree.map(lambda a, b: a + b / parts, grads, more), extra), metrics

        # Every n-th image makes a part: of a batch that is cut, each device keeps its own.
        parted = lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1)
        given = (parted(images), parted(labels), jax.random.split(key, parts))
        zeros = jax.tree.map(jnp.zeros_like, params)
        (grads, extra), metrics = jax.lax.scan(part, (zeros, extra), given)
        return (grads, jax.tree.map(lambda x: x.mean(axis=0), metrics)), extra

    return of_all


class OtherParts(Exception):
    """Raised while a part is traced: that many would be better."""

    def __init__(self, parts: int):
        super().__init__(f"{parts} parts would be better")
        self.parts = parts


def gradient_in_cache(
    loss_of: Callable, least: int, devices: int, each: Callable | None = None
) -> Callable:
    """`gradient_in_parts` of as many as a CPU's caches ask for.

    What a part keeps is known when it is traced, which takes most of a second: a guess is tried
    first, and where it is right, nothing is traced twice.

    Args:
        loss_of: as for `gradient_of`; the loss of a batch must be the mean of its parts'.
        least: parts that there are anyway; their number is a multiple of it.
        devices: that share the batch.
        each: a gradient → one of which each device works through its images by itself, which pays
            if there are more parts; None: XLA cuts what is traced.
    """

    def in_parts(parts, share, look):
        by_device = each is not None and parts > least
        sharing = 1 if by_device else devices

        def one(*given):
            finish, kept = forward(loss_of, *given)
            better = parts_in_cache(parts * kept // sharing, share, least, alone=devices == 1)
            if look and better != parts:
                raise OtherParts(better)
            return finish()

        gradient = gradient_in_parts(one, parts)
        return each(gradient) if by_device else gradient

    def gradient(params, extra, images, *given):
        share = len(images) // devices
        parts = likely_parts(sum(map(bytes_of, jax.tree.leaves(params))), share, least)
        try:
            return in_parts(parts, share, look=True)(params, extra, images, *given)
        except OtherParts as better:
            parts = better.parts
        return in_parts(parts, share, look=False)(params, extra, images, *given)

    return gradient


def likely_parts(size: int, images: int, least: int) -> int:
    """Two images a part (one, if there must be), but all at once if a model is small.

    Args:
        size: of the parameters, in bytes: an image of 65 tokens keeps about as much.
        images: of the batch, on each device.
        least: as for `gradient_in_cache`.
    """
    if images * size <= KEPT_BYTES:
        return least
    possible = possible_parts(images, least)
    return max((n for n in possible if images >= 2 * n), default=max(possible, default=least))


def parts_in_cache(kept: int, images: int, least: int, alone: bool) -> int:
    """The fewest parts of which a backward pass keeps little on each device.

    Parts of one image are left for those that keep much even so.

    Args:
        kept: by the passes of the whole batch, in bytes on each device.
        images: of the batch, on each device.
        least: as for `gradient_in_cache`.
        alone: whether there is but one device.
    """
    limit, of_pairs = KEPT_BYTES, PAIRS_BYTES
    if alone:
        limit, of_pairs = KEPT_ALONE_BYTES, PAIRS_ALONE_BYTES
    possible = possible_parts(images, least)
    pairs = [n for n in possible if images >= 2 * n and kept <= n * of_pairs]
    small = [n for n in pairs or possible if kept <= n * limit]
    return min(small, default=max(pairs or possible, default=least))


def possible_parts(images: int, least: int) -> list[int]:
    """Numbers of equal parts, multiples of `least`."""
    return [n for n in range(least, images + 1, least) if images % n == 0]
