"""Learning-rate schedules and optimizers by name, all of optax."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

SCHEDULES = ("cosine", "constant", "linear", "rsqrt", "wsd")
COOL_DOWN = 0.2  # the share of steps in which `wsd` decays
NO_DECAY = ("bias", "scale", "cls_token", "mask_token", "pos_embedding")


def make_schedule(
    sched: str, lr: float, steps: int, warmup_steps: int = 0, min_lr: float = 0.0
) -> optax.Schedule:
    """Step → learning rate: linear warm-up from 0, then by `sched`.

    "constant"; "cosine" and "linear" down to `min_lr`; "wsd" (warm-up, stable, decay): constant,
    and linear down to `min_lr` in the last fifth; "rsqrt": with one over the root of the step,
    from the end of the warm-up on (arXiv:2106.04560), and not below `min_lr`.
    """
    warmup_steps = min(warmup_steps, steps - 1)
    left = steps - warmup_steps
    if sched == "cosine":
        if not warmup_steps:
            return optax.cosine_decay_schedule(lr, steps, alpha=min_lr / lr)
        return optax.warmup_cosine_decay_schedule(0.0, lr, warmup_steps, steps, min_lr)
    after = {
        "constant": lambda: optax.constant_schedule(lr),
        "linear": lambda: optax.linear_schedule(lr, min_lr, left),
        "wsd": lambda: optax.linear_schedule(
            lr, min_lr, max(1, round(COOL_DOWN * left)), left - max(1, round(COOL_DOWN * left))
        ),
        "rsqrt": lambda: _rsqrt(lr, max(warmup_steps, 1), min_lr),
    }[sched]()
    warmup = optax.linear_schedule(0.0, lr, max(warmup_steps, 1))
    return optax.join_schedules([warmup, after], [warmup_steps])


def _rsqrt(lr, scale, min_lr):
    # A schedule that is joined to another is asked for steps before its own first, too.
    return lambda step: jnp.maximum(lr * jnp.sqrt(scale / (scale + jnp.maximum(step, 0))), min_lr)


def decay_mask(params: Any) -> Any:
    """True for each parameter that weight decay acts on: not norms, biases, tokens, positions."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key not in NO_DECAY, params)


def layer_scales(params: Any, layer_decay: float) -> Any:
    """The factor of each parameter's learning rate: 1 in the head and the last norm, `layer_decay`
    less in every block before, least in the embeddings (arXiv:2106.08254).
    """
    parallel = any(name.startswith("encoders_") for name in params)  # CrossViT's two branches
    depths = jax.tree_util.tree_map_with_path(lambda path, _: _depth(path, parallel), params)
    is_depth = lambda x: isinstance(x, tuple)
    order = sorted(set(jax.tree.leaves(depths, is_leaf=is_depth)))
    scale = lambda depth: layer_decay ** (len(order) - 1 - order.index(depth))
    return jax.tree.map(scale, depths, is_leaf=is_depth)


def _depth(path: tuple, parallel: bool) -> tuple[int, ...]:
    """What sorts parameters from the image to the logits: embeddings, numbered blocks, the head."""
    names = [key.key for key in path]
    if re.fullmatch(r"heads?(_\d+)?|classifier|norm|pool", names[0]):
        return (3,)
    numbers = [int(n) for name in names for n in re.findall(r"_(\d+)", name)]
    # An embedding may have blocks of its own; a numbered one begins a stage, or a branch.
    embeds = names[0] == "embedding" or (parallel and names[0].startswith("embeddings_"))
    if not numbers or embeds:
        return (0,)
    return (2 if names[0].startswith("cls_") else 1, *numbers)


def make_optimizer(
    opt: str,
    schedule: optax.Schedule,
    weight_decay: float = 0.01,
    clip_grad: float | None = None,
    layer_decay: float = 1.0,
) -> optax.GradientTransformation:
    """The named optimizer with decoupled, masked weight decay, behind a clip of the global norm.

    With a `layer_decay` below 1, earlier layers learn more slowly, by `layer_scales`.
    """
    before = [optax.clip_by_global_norm(clip_grad)] if clip_grad else []
    after = [_by_layer(layer_decay)] if layer_decay < 1 else []
    if opt == "schedule_free_adamw":
        # The whole of what it wraps; its momentum replaces Adam's (arXiv:2405.15682).
        adamw = optax.adamw(schedule, b1=0.0, weight_decay=weight_decay, mask=decay_mask)
        return optax.contrib.schedule_free(optax.chain(*before, adamw, *after), schedule)
    optimizer = OPTIMIZERS[opt](schedule, weight_decay)
    return optax.chain(*before, optimizer, *after) if before or after else optimizer


def _by_layer(layer_decay):
    return optax.stateless(
        lambda updates, _: jax.tree.map(jnp.multiply, updates, layer_scales(updates, layer_decay))
    )


def evaluated_params(params: Any, opt_state: Any) -> Any:
    """What to evaluate: a schedule-free optimizer's average, else the parameters themselves."""
    if isinstance(opt_state, optax.contrib.ScheduleFreeState):
        return optax.contrib.schedule_free_eval_params(opt_state, params)
    return params


def _masked(optimizer: Callable) -> Callable:
    return lambda schedule, decay: optimizer(schedule, weight_decay=decay, mask=decay_mask)


def _sgd(schedule, decay):
    """Nesterov momentum 0.9."""
    return optax.chain(
        optax.trace(0.9, nesterov=True),
        optax.add_decayed_weights(decay, decay_mask),
        optax.scale_by_learning_rate(schedule),
    )


def _adafactor(schedule, decay):
    """optax's decay is not scaled by the learning rate."""
    return optax.adafactor(
        schedule,
        weight_decay_rate=lambda step: decay * schedule(step),
        weight_decay_mask=decay_mask,
    )


def _muon(schedule, decay):
    """Dense kernels by Muon, the rest by Adam, whose own decay optax does not mask."""
    shrink = optax.add_decayed_weights(lambda step: -decay * schedule(step), decay_mask)
    return optax.chain(optax.contrib.muon(schedule), shrink)


OPTIMIZERS = {
    "adamw": _masked(optax.adamw),
    "lamb": _masked(optax.lamb),
    "lion": _masked(optax.lion),
    "sgd": _sgd,
    "adafactor": _adafactor,
    "muon": _muon,
    "schedule_free_adamw": None,  # wraps others: see `make_optimizer`
}
