"""Learning-rate schedules and optimizers by name, all of optax."""

from typing import Any

import jax
import optax

OPTIMIZERS = {"adamw": optax.adamw, "lamb": optax.lamb, "lion": optax.lion}
SCHEDULES = ("cosine", "constant")
NO_DECAY = ("bias", "scale", "cls_token", "mask_token", "pos_embedding")


def make_schedule(
    sched: str, lr: float, steps: int, warmup_steps: int = 0, min_lr: float = 0.0
) -> optax.Schedule:
    """Step → learning rate: linear warm-up from 0, then constant, or a cosine down to `min_lr`."""
    warmup_steps = min(warmup_steps, steps - 1)
    if sched == "cosine":
        if not warmup_steps:
            return optax.cosine_decay_schedule(lr, steps, alpha=min_lr / lr)
        return optax.warmup_cosine_decay_schedule(0.0, lr, warmup_steps, steps, min_lr)
    warmup = optax.linear_schedule(0.0, lr, max(warmup_steps, 1))
    return optax.join_schedules([warmup, optax.constant_schedule(lr)], [warmup_steps])


def decay_mask(params: Any) -> Any:
    """True for each parameter that weight decay acts on: not norms, biases, tokens, positions."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key not in NO_DECAY, params)


def make_optimizer(
    opt: str, schedule: optax.Schedule, weight_decay: float, clip_grad: float | None = None
) -> optax.GradientTransformation:
    """The named optimizer with decoupled, masked weight decay, behind a clip of the global norm."""
    optimizer = OPTIMIZERS[opt](schedule, weight_decay=weight_decay, mask=decay_mask)
    return optax.chain(optax.clip_by_global_norm(clip_grad), optimizer) if clip_grad else optimizer
