"""Checkpoints, by orbax: the model's `weights`, all that `training` needs, and its `progress`."""

import contextlib
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from etils import epy
from jax.experimental.multihost_utils import sync_global_devices
from jax.sharding import SingleDeviceSharding

from vix_flax.reason import reason
from vix_flax.training.state import TrainState

with epy.lazy_imports():  # a new run takes its first step before it needs this
    import orbax.checkpoint as ocp

FORMAT = 1  # of what is in a checkpoint; raised when older ones can no longer be read


class Checkpoints:
    """The checkpoints of one run: the newest `keep`, and as many of the best scores.

    They are written while training goes on; leaving this context waits for the last. What is not
    whole is never read, and an old one goes only after a newer is whole.
    """

    def __init__(self, folder: Path, keep: int = 1):
        self.folder, self.keep = folder.resolve(), keep

    @cached_property
    def manager(self) -> "ocp.CheckpointManager":
        """Orbax's, made when something is saved or read."""
        policies, score = ocp.checkpoint_managers, lambda metrics: metrics["score"]
        newest = policies.LatestN(n=self.keep)
        best = policies.BestN(get_metric_fn=score, n=self.keep)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy([newest, best]),
            best_fn=score,
            cleanup_tmp_directories=True,
        )
        return ocp.CheckpointManager(self.folder, options=options, item_handlers=_handlers())

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind, *_):
        if "manager" not in vars(self):
            return
        if kind is None:
            self.wait()
        with contextlib.suppress(Exception):  # what stopped us says more
            self.manager.close()

    def save(
        self, state: TrainState, weights: dict, progress: dict, score: float | None = None
    ) -> None:
        """Writes the state as step `state.step`, in the background.

        Args:
            state: may be donated as soon as this returns.
            weights: the variables that the model is to be used with.
            progress: where training stands; JSON.
            score: of this state on the validation images, the higher the better.

        Raises:
            OSError: this or the checkpoint before could not be written.
        """
        step = int(state.step)
        self.wait()
        if step in self.manager.all_steps():
            return  # nothing has happened since
        args = ocp.args.Composite(
            weights=ocp.args.StandardSave(_copied(weights)),
            training=ocp.args.StandardSave(_copied(_training(state))),
            progress=ocp.args.JsonSave({"format": FORMAT, **progress}),
        )
        # In the middle of an epoch there is none, and no such state is ever the best.
        metrics = {"score": float("-inf") if score is None else score}
        with self._as_os_error():
            self.manager.save(step, args=args, metrics=metrics)

    def wait(self) -> None:
        """Returns when all is written.

        Raises:
            OSError: it could not be.
        """
        with self._as_os_error():
            self.manager.wait_until_finished()

    @contextlib.contextmanager
    def _as_os_error(self):
        try:
            yield
        except Exception as error:  # orbax and tensorstore raise anything
            raise OSError(
                f"no checkpoint could be written to {self.folder}: {reason(error)}"
            ) from error

    def restore(self, state: TrainState) -> tuple[TrainState, dict] | None:
        """The newest readable state and its progress; None if there never was a checkpoint.

        What cannot be read is named and put aside.

        Args:
            state: one of the same shapes, or its `jax.eval_shape`.

        Raises:
            ValueError: none of them can be read, or they are of another model or format.
        """
        abstract = _here(_training(state))

        def read(step):
            args = ocp.args.Composite(
                training=ocp.args.StandardRestore(abstract), progress=ocp.args.JsonRestore()
            )
            found = self.manager.restore(step, args=args)
            return state.replace(**found["training"]), found["progress"]

        steps = whole_steps(self.folder)[::-1]
        if not steps:
            return None
        step, found = _first_readable(self.manager, self.folder, steps, "training", abstract, read)
        if jax.process_index() == 0:
            for damaged in steps[: steps.index(step)]:  # its number will be needed again
                aside = self.folder / f"damaged-{damaged}"
                shutil.rmtree(aside, ignore_errors=True)
                (self.folder / str(damaged)).rename(aside)
        sync_global_devices("damaged checkpoints are put aside")
        self.manager.reload()
        return found


def whole_steps(folder: Path) -> list[int]:
    """The steps whose checkpoints were written to their end, in order."""
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdigit())


def restore_variables(
    folder: Path, abstract: dict, best: bool = False, averaged: bool = True
) -> dict:
    """The model's variables of the latest step.

    Args:
        folder: of the checkpoints.
        abstract: the variables' shapes and dtypes, as `jax.eval_shape` gives them.
        best: those of the best step on the validation images instead.
        averaged: the averaged parameters, if training kept an average; False: those it went on
            from.

    Raises:
        ValueError: there is no checkpoint, it is damaged, or it does not fit the model.
    """
    if not folder.is_dir():
        raise ValueError(f"no checkpoint in {folder}: has the run finished its first epoch?")
    options = ocp.CheckpointManagerOptions(best_fn=lambda metrics: metrics["score"], create=False)
    handlers = {**_handlers(), "training": ocp.PyTreeCheckpointHandler()}  # which reads parts, too
    abstract = _here(abstract)
    item, wanted = "weights", abstract
    if not averaged:
        rest = {name: value for name, value in abstract.items() if name != "params"}
        item, wanted = "training", {"params": abstract["params"], "extra": rest}
    with ocp.CheckpointManager(
        folder.resolve(), options=options, item_handlers=handlers
    ) as manager:

        def read(step):
            if averaged:
                args = ocp.args.Composite(weights=ocp.args.StandardRestore(wanted))
                return manager.restore(step, args=args)["weights"]
            place = ocp.checkpoint_utils.construct_restore_args(wanted)
            restore = ocp.args.PyTreeRestore(wanted, restore_args=place, partial_restore=True)
            found = manager.restore(step, args=ocp.args.Composite(training=restore))["training"]
            return {"params": found["params"], **found["extra"]}

        steps = sorted(manager.all_steps(), reverse=True)
        if best and manager.best_step() is not None:
            steps = [manager.best_step()]
        if not steps:
            raise ValueError(f"no checkpoint in {folder}: has the run finished its first epoch?")
        return _first_readable(manager, folder, steps, item, wanted, read)[1]


def _first_readable(
    manager: "ocp.CheckpointManager",
    folder: Path,
    steps: Sequence[int],
    item: str,
    abstract: Any,
    read: Callable,
) -> tuple[int, Any]:
    """The first of these steps that can be read, and what `read` gives for it.

    Raises:
        ValueError: there is none, or it is of another format or model.
    """
    for step in steps:
        held = folder / str(step)
        if (held / "weights").exists() and not (held / "progress").exists():
            raise ValueError(
                f"the checkpoint in {folder} was written before there was a format: train it anew"
            )
        try:
            progress = manager.restore(
                step, args=ocp.args.Composite(progress=ocp.args.JsonRestore())
            )["progress"]
            stored = manager.item_metadata(step)[item]
            if stored is None:
                raise FileNotFoundError(f"it has no {item}")
        except Exception as error:  # orbax and tensorstore raise anything from KeyError to OSError
            why = reason(error)
        else:
            if progress["format"] != FORMAT:
                raise ValueError(
                    f"the checkpoint in {folder} has the format {progress['format']}, and this "
                    f"version of vix_flax reads {FORMAT}: use the version that wrote it"
                )
            _check_shapes(folder, stored, abstract)
            try:
                return step, read(step)
            except Exception as error:
                why = reason(error)
        if step != steps[-1] and jax.process_index() == 0:
            print(f"checkpoint {step} in {folder} is damaged: going back ({why})", file=sys.stderr)
    raise ValueError(f"the checkpoint in {folder} cannot be restored: {why}")


def _handlers() -> dict[str, "ocp.CheckpointHandler"]:
    return {
        "weights": ocp.StandardCheckpointHandler(),
        "training": ocp.StandardCheckpointHandler(),
        "progress": ocp.JsonCheckpointHandler(),
    }


def _training(state: TrainState) -> dict[str, Any]:
    """All that changes in training."""
    names = ("step", "params", "extra", "opt_state", "rng", "ema")
    held = {name: getattr(state, name) for name in names}
    return {name: value for name, value in held.items() if value is not None}


def _copied(tree: Any) -> Any:
    """On a CPU a donated buffer is used again at once, while orbax still reads it."""
    return tree if jax.default_backend() != "cpu" else _copy(tree)


@jax.jit
def _copy(tree):
    return jax.tree.map(jnp.copy, tree)


def _here(tree: Any) -> Any:
    """Shapes and dtypes, for arrays as they lie, or on this machine's first device: where they lay
    when they were saved there may be none.
    """
    device = SingleDeviceSharding(jax.local_devices()[0])

    def place(x):
        sharding = getattr(x, "sharding", None) or device
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    return jax.tree.map(place, tree)


def _check_shapes(folder: Path, stored: Any, abstract: Any) -> None:
    """Before anything is read: orbax reports a misfit late, and at length."""
    parts = {name: stored[name] for name in abstract if name in stored}
    there = {path: tuple(leaf.shape) for path, leaf in _flat(parts)}
    wanted = {path: tuple(leaf.shape) for path, leaf in _flat(abstract)}
    for path in sorted(there.keys() | wanted.keys()):
        if there.get(path) != wanted.get(path):
            raise ValueError(
                f"the checkpoint in {folder} cannot be restored: {path} is "
                f"{there.get(path, 'missing')}, the model's {wanted.get(path, 'none')}"
            )


def _flat(tree: Any) -> Iterator[tuple[str, Any]]:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if hasattr(leaf, "shape"):
            if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):  # stored as its data
                leaf = jax.eval_shape(jax.random.key_data, leaf)
            yield jax.tree_util.keystr(path, simple=True, separator="/"), leaf
