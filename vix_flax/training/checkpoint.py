"""Checkpoints, by orbax: what a model needs (`weights`) apart from what `training` needs."""

from pathlib import Path

import orbax.checkpoint as ocp

from vix_flax.training.state import TrainState


def save(folder: Path, state: TrainState) -> None:
    """Writes the state as step `state.step` under `folder`, and waits until it is there."""
    with ocp.CheckpointManager(folder.resolve()) as manager:
        manager.save(
            int(state.step),
            args=ocp.args.Composite(
                weights=ocp.args.StandardSave(state.eval_variables),
                training=ocp.args.StandardSave(
                    {"params": state.params, "opt_state": state.opt_state, "rng": state.rng}
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
        with ocp.CheckpointManager(folder.resolve()) as manager:
            step = manager.latest_step()
            if step is None:
                raise ValueError("it is empty")
            args = ocp.args.Composite(weights=ocp.args.StandardRestore(abstract))
            return manager.restore(step, args=args)["weights"]
    except Exception as error:  # orbax and tensorstore raise anything from KeyError to ValueError
        reason = str(error).splitlines()[0]
        raise ValueError(f"the checkpoint in {folder} cannot be restored: {reason}") from error
