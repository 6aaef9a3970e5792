"""Checkpoints, by orbax: what a model needs (`weights`) apart from what `training` needs."""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from vix_flax.training.state import TrainState


def _manager(folder: Path) -> ocp.CheckpointManager:
    handlers = {item: ocp.StandardCheckpointHandler() for item in ("weights", "training")}
    return ocp.CheckpointManager(folder.resolve(), item_handlers=handlers)


def save(folder: Path, state: TrainState, weights: dict) -> None:
    """Writes the state as step `state.step` under `folder`, and waits until it is there.

    `weights` are the variables that the model is to be used with.
    """
    with _manager(folder) as manager:
        manager.save(
            int(state.step),
            args=ocp.args.Composite(
                weights=ocp.args.StandardSave(weights),
                training=ocp.args.StandardSave(
                    {
                        "params": state.params,
                        "extra": state.extra,
                        "opt_state": state.opt_state,
                        "rng": state.rng,
                    }
                ),
            ),
        )


def restore_variables(folder: Path, abstract: dict) -> dict:
    """The model's variables (averaged parameters, if training kept an average) of the latest step.

    Args:
        folder: what `save` wrote to.
        abstract: the variables' shapes and dtypes, as `jax.eval_shape` gives them.

    Raises:
        ValueError: there is no checkpoint, it is damaged, or it does not fit the model.
    """
    if not folder.is_dir():
        raise ValueError(f"no checkpoint in {folder}: has the run finished?")
    try:
        with _manager(folder) as manager:
            step = manager.latest_step()
            if step is None:
                raise ValueError("it is empty")
            _check_shapes(manager.item_metadata(step)["weights"], abstract)
            args = ocp.args.Composite(weights=ocp.args.StandardRestore(abstract))
            return manager.restore(step, args=args)["weights"]
    except Exception as error:  # orbax and tensorstore raise anything from KeyError to OSError
        reason = (str(error).strip() or repr(error)).splitlines()[0][:300]
        raise ValueError(f"the checkpoint in {folder} cannot be restored: {reason}") from error


def _check_shapes(stored: Any, abstract: dict) -> None:
    """Before anything is read: orbax reports a misfit late, and at length."""
    there = {path: tuple(leaf.shape) for path, leaf in _flat(stored).items()}
    wanted = {path: leaf.shape for path, leaf in _flat(abstract).items()}
    for path in sorted(there.keys() | wanted.keys()):
        if there.get(path) != wanted.get(path):
            raise ValueError(
                f"{path} is {there.get(path, 'missing')}, the model's {wanted.get(path, 'none')}"
            )


def _flat(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
