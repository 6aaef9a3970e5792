"""What is saved comes back exactly; what cannot come back is a ValueError that names the folder."""

import jax
import numpy as np
import optax
import pytest
from flax import linen as nn

from vix_flax.training import create_state, make_optimizer
from vix_flax.training.checkpoint import Checkpoints, restore_variables

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


def save(folder, *states, scores=(), keep=1):
    with Checkpoints(folder, keep) as checkpoints:
        for i, state in enumerate(states):
            score = scores[i] if scores else None
            checkpoints.save(state, state.eval_variables, {"number": i}, score)


@pytest.fixture
def folder(state, tmp_path):
    save(tmp_path / "checkpoint", state)
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


def test_everything_to_train_on_comes_back(state, folder):
    with Checkpoints(folder) as checkpoints:
        restored, progress = checkpoints.restore(jax.eval_shape(lambda: state))
    assert progress == {"format": 1, "number": 0}
    assert restored.rng == state.rng
    for name in ("step", "params", "extra", "opt_state", "ema"):
        assert_equal(getattr(restored, name), getattr(state, name))


def test_a_state_may_be_donated_while_it_is_written(state, tmp_path):
    change = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    mine = jax.tree.map(lambda x: x + 0, state.replace(rng=np.zeros(2)))
    kept = jax.tree.map(np.array, mine)
    with Checkpoints(tmp_path / "new") as checkpoints:
        checkpoints.save(mine, mine.eval_variables, {})
        for _ in range(50):
            mine = change(mine)
    with Checkpoints(tmp_path / "new") as checkpoints:
        restored, _ = checkpoints.restore(kept)
    assert_equal(restored.params, kept.params)


def test_the_newest_and_the_best_are_kept(state, tmp_path):
    states = [state.replace(step=step) for step in (2, 4, 6, 8, 9)]
    save(tmp_path / "new", *states, scores=(0.1, 0.9, 0.3, 0.2, None), keep=2)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["4", "6", "8", "9"]


def test_the_best_is_restored_on_request(state, tmp_path):
    worse = state.replace(step=5, ema=jax.tree.map(lambda x: x + 1, state.ema))
    save(tmp_path / "new", state, worse, scores=(0.9, 0.3))
    assert_equal(restore_variables(tmp_path / "new", abstract(Toy()), True), state.eval_variables)
    assert_equal(restore_variables(tmp_path / "new", abstract(Toy())), worse.eval_variables)


def test_a_damaged_best_is_named(state, tmp_path):
    save(tmp_path / "new", state, state.replace(step=5), scores=(0.9, 0.3))
    for path in (tmp_path / "new" / "1" / "weights").rglob("*"):
        if path.is_file():
            path.unlink()
    with pytest.raises(ValueError, match="new cannot be restored"):
        restore_variables(tmp_path / "new", abstract(Toy()), best=True)
    assert_equal(restore_variables(tmp_path / "new", abstract(Toy())), state.eval_variables)


def test_it_is_read_where_its_device_is_not(state, folder):
    (stored,) = folder.glob("*/weights/_sharding")
    text = stored.read_text()
    assert "cpu" in text.lower()
    for path in folder.glob("*/*/_sharding"):
        path.write_text(path.read_text().replace("TFRT_CPU_0", "cuda:0").replace("cpu:0", "cuda:0"))
    assert stored.read_text() != text
    assert_equal(restore_variables(folder, abstract(Toy())), state.eval_variables)


def test_before_the_first_checkpoint(state, tmp_path):
    with Checkpoints(tmp_path / "new") as checkpoints:
        assert checkpoints.restore(state) is None


def test_the_latest_step_is_restored(state, folder):
    later = state.replace(step=7, ema=jax.tree.map(lambda x: x + 1, state.ema))
    save(folder, later)
    assert_equal(restore_variables(folder, abstract(Toy())), later.eval_variables)


def test_a_relative_folder_will_do(state, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save((tmp_path / "here").relative_to(tmp_path), state)
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
