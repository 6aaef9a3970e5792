"""Wrappers against the published code's numbers: distillation, masked patches, BYOL, Recorder.

Reads the fixtures of `tests/test_golden.py`'s folder that hold a wrapper.
"""

from functools import partial

import golden_models
import golden_wrappers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from einops import rearrange
from flax import traverse_util
from test_golden import FOLDER

from vix_flax.wrappers import Recorder, mask_patches, update_target

ATOL = 2e-5
LOADED = {
    str(p.relative_to(FOLDER))[:-4]: golden_models.load(p) for p in sorted(FOLDER.rglob("*.npz"))
}


def fixtures(key):
    """Parametrizes over the fixtures whose arrays or config have this key."""
    names = [name for name, (arrays, config) in LOADED.items() if key in arrays or key in config]
    assert names, f"no fixture with {key} under {FOLDER}"
    return pytest.mark.parametrize("name", names)


def close(ours, theirs, atol=ATOL):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol)


@fixtures("student")
def test_distillation(name):
    arrays, config = LOADED[name]
    wrapper, variables, student, plain = golden_wrappers.distill(arrays, config)
    img, labels = arrays["x_nhwc"], arrays["labels"]

    def loss(params, **given):
        hard = given.pop("hard", False)
        given |= {"teacher_logits": arrays["teacher_logits"], "with_logits": True}
        return wrapper.clone(hard=hard).apply({"params": params}, img, labels, **given)

    for kind, given in (("soft", {}), ("hard", {"hard": True})):
        (ours, (logits, distilled)), grads = jax.jit(
            jax.value_and_grad(partial(loss, **given), has_aux=True)
        )(variables["params"])
        close(ours, arrays[f"loss_{kind}"])
        close(logits, arrays["student_logits"])
        close(distilled, arrays["distill_logits"])
        names, norms = config["meta"]["gradnorm_names"], arrays[f"gradnorm_{kind}"]
        theirs = dict(zip(names, norms, strict=True))
        for path, torch in (
            (("distillation_token",), "distillation_token"),
            (("distill_mlp", "kernel"), "distill_mlp.1.weight"),
            (("student", "head", "dense", "kernel"), "student.mlp_head.weight"),
        ):
            if torch in theirs:
                grad = traverse_util.flatten_dict(grads)[path]
                np.testing.assert_allclose(
                    jnp.linalg.norm(grad), theirs[torch], rtol=2e-4, atol=1e-5
                )
    if "loss_soft_T1_alpha0.9" in arrays:
        ours, _ = jax.jit(partial(loss, temperature=1.0, alpha=0.9))(variables["params"])
        close(ours, arrays["loss_soft_T1_alpha0.9"])
    _, tokens = jax.jit(student.apply)(plain, img, variables["params"]["distillation_token"])
    close(tokens, arrays["distill_tokens"])
    model, held = wrapper.to_vit(variables)
    close(jax.jit(model.apply)(held, img), arrays["logits"])
    close(jax.jit(student.apply)(plain, img), arrays["logits"])


@fixtures("mpp")
def test_masked_patch_prediction(name):
    arrays, config = LOADED[name]
    wrapper, variables, draws = golden_wrappers.mpp(arrays, config)
    img = arrays["x_nhwc"]
    size = config["mpp"]["patch_size"]
    patches = rearrange(img, "b (h p) (w q) c -> b (h w) (p q c)", p=size, q=size)
    rates = (wrapper.mask_prob, wrapper.replace_prob, wrapper.random_patch_prob)
    seen, masked = mask_patches(patches, variables["params"]["mask_token"], draws, *rates)
    np.testing.assert_array_equal(masked, arrays["mask"].astype(bool))
    np.testing.assert_array_equal(seen, arrays["masked_patches"])
    np.testing.assert_array_equal(wrapper.labels(patches), arrays["target_labels"])
    apply = jax.jit(partial(wrapper.apply, draws=draws, mutable=["intermediates"]))
    loss, state = apply(variables, img)
    close(loss, arrays["loss"])
    close(state["intermediates"]["mpp_logits"][0], arrays["mpp_logits"])
    shapes = jax.eval_shape(lambda: wrapper.init(jax.random.key(0), img, draws=draws))
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
    assert count == config["meta"]["trainable_params"]


@fixtures("byol")
def test_byol(name):
    arrays, config = LOADED[name]
    wrapper, variables = golden_wrappers.byol(arrays, config)
    views = arrays["view1_nhwc"], arrays["view2_nhwc"]

    def loss(params):
        return wrapper.apply(
            {**variables, "params": params}, *views, train=True, mutable=["batch_stats", "target"]
        )

    (ours, updates), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"])
    close(ours, arrays["loss"])
    theirs = dict(zip(config["meta"]["gradnorm_names"], arrays["gradnorm"], strict=True))
    checked = 0
    for torch, path in {
        "online_encoder.net.pos_embedding": ("online", "net", "pos_embedding"),
        "online_encoder.net.transformer.norm.weight": ("online", "net", "norm", "scale"),
        "online_encoder.projector.net.3.weight": ("online", "projector", "dense2", "kernel"),
        "online_encoder.projector.2.3.weight": ("online", "projector", "dense2", "kernel"),
        "online_encoder.projector.3.weight": ("online", "projector", "dense2", "kernel"),
        "online_predictor.net.3.weight": ("predictor", "dense2", "kernel"),
        "online_predictor.3.weight": ("predictor", "dense2", "kernel"),
    }.items():
        if torch in theirs:
            grad = traverse_util.flatten_dict(grads)[path]
            np.testing.assert_allclose(jnp.linalg.norm(grad), theirs[torch], rtol=5e-4, atol=1e-5)
            checked += 1
    assert checked >= 3

    torch = golden_models.weights(arrays)
    after = {k.removeprefix("bn_after/"): v for k, v in arrays.items() if k.startswith("bn_after/")}
    _, expected = golden_wrappers.byol(arrays, config, {**torch, **after})
    count = len(views[0]) * (2 if wrapper.joint_views else 1)
    statistics = [(updates["batch_stats"], expected["batch_stats"], variables["batch_stats"])]
    targets = (updates["target"], expected["target"], variables["target"])
    statistics.append([t["encoder"]["batch_stats"] for t in targets])
    for ours, theirs, before in (map(traverse_util.flatten_dict, trio) for trio in statistics):
        for path, value in theirs.items():
            if path[-1] == "var" and not wrapper.joint_views:  # two updates, one a view
                first = 0.81 * before[path]
                value = first + (value - first) * (count - 1) / count
            elif path[-1] == "var":
                value = golden_wrappers.biased(before[path], value, count)
            np.testing.assert_allclose(ours[path], value, rtol=1e-4, atol=1e-4, err_msg=str(path))


@fixtures("target_param_sum_after_ema")
def test_the_slow_copy_moves(name):
    arrays, config = LOADED[name]
    wrapper, variables = golden_wrappers.byol(arrays, config)
    moved = update_target(variables, wrapper.moving_average_decay)["target"]["encoder"]
    sums = dict(zip(config["meta"]["ema_names"], arrays["target_param_sum_after_ema"], strict=True))
    ours = sum(float(np.sum(leaf, dtype=np.float64)) for leaf in jax.tree.leaves(moved["params"]))
    np.testing.assert_allclose(ours, sum(map(float, sums.values())), rtol=1e-4, atol=1e-3)
    close(moved["params"]["net"]["pos_embedding"].sum(), sums["net.pos_embedding"], atol=1e-3)
    for ours, before in zip(
        jax.tree.leaves(moved["batch_stats"]),
        jax.tree.leaves(variables["target"]["encoder"]["batch_stats"]),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, before)


@fixtures("attns")
def test_recorder(name):
    arrays, config = LOADED[name]
    model = golden_models.build(config)
    variables = golden_models.vix.convert.from_torch(model, golden_models.weights(arrays))
    recorder = Recorder(model)
    logits, maps = jax.jit(recorder.apply)(variables, jnp.asarray(arrays["x_nhwc"]))
    close(logits, arrays["logits"])
    close(maps, arrays["attns"])
    assert recorder.eject() is model
    with pytest.raises(ValueError, match="ejected"):
        recorder.apply(variables, arrays["x_nhwc"])
