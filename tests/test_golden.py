"""Every golden fixture is the published code's numbers: weights, inputs, outputs, gradients.

Reads all `.npz` files under `$VIX_GOLDEN_DIR` (default: `tests/golden/`) whose model exists here.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import golden_models
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util

import vix_flax as vix

FOLDER = Path(os.environ.get("VIX_GOLDEN_DIR") or Path(__file__).with_name("golden"))
FIXTURES = [path for path in sorted(FOLDER.rglob("*.npz")) if golden_models.has_model(path)]
# What a fixture calls an activation, and where it stands in our intermediates.
ACTIVATIONS = {
    "act/embed": ("tokens",),
    "act/block1_mixer_out": ("blocks_0", "mixer", "__call__"),
    "act/block1_token_mix": ("blocks_0", "mixer", "__call__"),
    "act/block1_branch_out": ("blocks_0", "mlp", "__call__"),
    "act/block1": ("blocks_0", "__call__"),
    "act/head_in": ("encode",),
    "act/pooled": ("pooled",),
    "act/stage1": ("stage 1",),
    "act/stage1_embed": ("tokens",),
    "act/stage1_block1_mixer_out": ("blocks_0_0", "mixer", "__call__"),
    "act/block1_in": ("tokens",),
    "act/block1_attn_out": ("blocks_0", "mixer", "__call__"),
}

METHODS = {place[-1] for place in ACTIVATIONS.values()}


@dataclass
class Case:
    """A fixture, and our model's answer to it."""

    arrays: dict
    config: dict
    model: nn.Module
    variables: dict
    logits: jax.Array
    distilled: jax.Array | None
    captured: dict
    grad: jax.Array

    @property
    def atol(self):
        """2e-5 (1e-4 where activations grow without norms or through many stages), or a few times
        the fixture's own float32 error where that is larger."""
        usual = 1e-4 if self.config["variant"] in ("LeViN", "CvN") else 2e-5
        return max(usual, 5 * (self.config.get("f32_vs_f64_maxabs") or 0))

    def assert_close(self, ours, name, scaled=False):
        """Our value is the fixture's; `scaled`: in units of its largest entry, if above 1."""
        value = self.arrays[name]
        atol = self.atol * max(1, np.abs(value).max()) if scaled else self.atol
        np.testing.assert_allclose(ours, value, rtol=0, atol=atol, err_msg=name)


@pytest.fixture(scope="module", params=FIXTURES, ids=lambda p: str(p.relative_to(FOLDER))[:-4])
def case(request):
    """Everything is computed in one compiled call."""
    arrays, config = golden_models.load(request.param)
    model = golden_models.build(config, arrays["x_nhwc"].shape[1:3])
    variables = vix.convert.from_torch(model, golden_models.weights(arrays))

    @jax.jit
    def loss(x):
        logits, captured = model.apply(
            variables, x, capture_intermediates=lambda _, name: name in METHODS
        )
        logits, distilled = logits if isinstance(logits, tuple) else (logits, None)
        log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), arrays["labels"][:, None], axis=1)
        return -log_p.mean(), (logits, distilled, captured["intermediates"])

    grad, (logits, distilled, captured) = jax.grad(loss, has_aux=True)(
        jnp.asarray(arrays["x_nhwc"])
    )
    captured = {place: out[0] for place, out in traverse_util.flatten_dict(captured).items()}
    return Case(arrays, config, model, variables, logits, distilled, captured, grad)


def first(logits):
    """The logits proper, of a model that may have a second head."""
    return logits[0] if isinstance(logits, tuple) else logits


def test_the_folder_has_fixtures():
    assert FIXTURES, f"no fixture of a known model under {FOLDER}"


def test_logits(case):
    case.assert_close(case.logits, "logits")


def test_distillation_logits(case):
    assert (case.distilled is None) == ("logits_distill" not in case.arrays)
    if case.distilled is not None:
        case.assert_close(case.distilled, "logits_distill")


def test_each_image_alone(case):
    apply = jax.jit(case.model.apply)
    alone = [first(apply(case.variables, image[None])) for image in case.arrays["x_nhwc"]]
    name = "logits_batch1" if "logits_batch1" in case.arrays else "logits"
    case.assert_close(jnp.concatenate(alone), name)


def test_input_gradient(case):
    if "grad_x_nhwc" in case.arrays:
        case.assert_close(case.grad, "grad_x_nhwc", scaled=True)


def test_activations(case):
    stored = {name for name in case.arrays if name.startswith("act/")}
    assert stored <= ACTIVATIONS.keys()
    for name in stored:
        if name == "act/stage1":
            ours = case.captured[golden_models.end_of_first_stage(case.model), "__call__"]
        else:
            ours = case.captured[ACTIVATIONS[name]]
        if name == "act/embed" and "act/block1_in" in stored:  # before positions are added
            ours = case.captured["tokenizer", "__call__"].reshape(ours.shape)
        if name == "act/block1_token_mix":  # stored with the residual
            ours = ours + case.captured["tokens",]
        case.assert_close(ours, name, scaled=True)


def test_without_the_quirk_that_couples_images(case):
    for name, options in (
        ("logits_alt_pinv_per_matrix", {"zero_pad": True}),
        ("logits_alt_kmax_per_head", {}),
    ):
        if name in case.arrays:
            x = case.arrays["x_nhwc"]
            model = golden_models.build(
                case.config, x.shape[1:3], reference=False, attention_options=options
            )
            case.assert_close(first(jax.jit(model.apply)(case.variables, x)), name)


def test_parameter_count(case):
    assert vix.count_params(case.variables) == case.config["trainable_params"]


def test_a_training_pass_of_batch_norm(case):
    if "train_logits" not in case.arrays:
        return
    x = case.arrays["x_nhwc"]
    logits, updates = case.model.apply(
        case.variables, x, train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(0)}
    )
    case.assert_close(logits, "train_logits")
    # Torch keeps the unbiased variance of the batch, Flax the biased one.
    pixels = np.prod(x.shape[:-1])
    for name, value in case.arrays.items():
        if not name.startswith("after_train_step/"):
            continue
        layer, kind = name.removeprefix("after_train_step/").rsplit(".running_", 1)
        if kind == "var":
            kept = 0.9 * case.arrays[f"w/{layer}.running_var"]
            value = kept + (value - kept) * (pixels - 1) / pixels
        ours = updates["batch_stats"][f"blocks_{layer.split('.')[1]}"]["norm"][kind]
        np.testing.assert_allclose(ours, value, rtol=1e-4, atol=1e-4)
