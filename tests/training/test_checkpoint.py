"""What is saved comes back exactly; what cannot come back is a ValueError that names the folder."""

import jax
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import linen as nn

from vix_flax.training import create_state, make_optimizer
from vix_flax.training.checkpoint import restore_variables, save

IMAGE = jax.ShapeDtypeStruct((1, 4, 4, 1), "float32")


class Toy(nn.Module):
    """Layers with running statistics."""

    widths: tuple[int, ...] = (8,)

    @nn.compact
    def __call__(self, x, *, train=False):
        x = x.reshape(len(x), -1)
        for width in self.widths:
            x = nn.BatchNorm(use_running_average=not train)(nn.Dense(width)(x))
        return nn.Dense(3)(x)


def abstract(model):
    return jax.eval_shape(model.init, jax.random.key(0), IMAGE)


@pytest.fixture(scope="module")
def state():
    tx = make_optimizer("adamw", optax.constant_schedule(1e-3), 0.01, clip_grad=1.0)
    state = create_state(Toy(), IMAGE, tx, ema=True)
    grads = jax.tree.map(np.ones_like, state.params)
    return state.apply_gradients(grads=grads)


@pytest.fixture
def folder(state, tmp_path):
    save(tmp_path / "checkpoint", state, state.eval_variables)
    return tmp_path / "checkpoint"


def assert_equal(a, b):
    def check(x, y):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)

    jax.tree.map(check, a, b)


def test_variables_come_back_exactly_and_are_the_averaged_ones(state, folder):
    restored = restore_variables(folder, abstract(Toy()))
    assert_equal(restored, state.eval_variables)
    assert_equal(restored["params"], state.ema)
    assert restored.keys() == {"params", "batch_stats"}


def test_everything_to_train_on_is_saved(state, folder):
    names = ("params", "extra", "opt_state", "rng")
    training = {name: getattr(state, name) for name in names}
    shapes = jax.eval_shape(lambda: training)
    with ocp.CheckpointManager(folder) as manager:
        assert manager.all_steps() == [1]
        args = ocp.args.Composite(training=ocp.args.StandardRestore(shapes))
        restored = manager.restore(1, args=args)["training"]
    assert restored["rng"] == state.rng
    for name in names[:-1]:
        assert_equal(restored[name], training[name])


def test_the_latest_step_is_restored(state, folder):
    later = state.replace(step=7, ema=jax.tree.map(lambda x: x + 1, state.ema))
    save(folder, later, later.eval_variables)
    assert_equal(restore_variables(folder, abstract(Toy())), later.eval_variables)


def test_a_relative_folder_will_do(state, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save((tmp_path / "here").relative_to(tmp_path), state, state.eval_variables)
    restored = restore_variables((tmp_path / "here").relative_to(tmp_path), abstract(Toy()))
    assert_equal(restored, state.eval_variables)


def test_no_checkpoint(tmp_path):
    with pytest.raises(ValueError, match="nowhere"):
        restore_variables(tmp_path / "nowhere", abstract(Toy()))


def test_an_empty_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty"):
        restore_variables(tmp_path / "empty", abstract(Toy()))


@pytest.mark.parametrize("damage", ["missing", "empty", "cut off", "garbled"])
def test_a_damaged_checkpoint(folder, damage):
    (file,) = folder.glob("*/weights/_METADATA")
    data = file.read_bytes()
    file.unlink()
    if damage != "missing":
        garbled = bytes(byte ^ 255 for byte in data)
        file.write_bytes({"empty": b"", "cut off": data[:99], "garbled": garbled}[damage])
    with pytest.raises(ValueError, match=f"{folder.name} cannot be restored"):
        restore_variables(folder, abstract(Toy()))


@pytest.mark.parametrize("widths", [(), (9,), (8, 8)], ids=["fewer", "wider", "more"])
def test_a_checkpoint_of_another_model(folder, widths):
    with pytest.raises(ValueError, match=f"{folder.name} cannot be restored"):
        restore_variables(folder, abstract(Toy(widths)))
