"""Every data set has a recipe, and a recipe serves every model."""

import pytest

import vix_flax as vix
from vix_flax.data import DATASETS, load_dataset
from vix_flax.launch import resolve
from vix_flax.layers import field_names
from vix_flax.presets import PRESETS
from vix_flax.recipes import RECIPES, recipe


def test_there_is_a_recipe_for_every_data_set():
    assert RECIPES.keys() >= DATASETS.keys()
    for name, config in RECIPES.items():
        assert config.dataset == name or name not in DATASETS
        assert config.dataset in DATASETS
        assert config.model in PRESETS


@pytest.mark.parametrize("name", RECIPES)
def test_alone_it_is_the_recipe_itself(name):
    assert recipe(name) == RECIPES[name]


@pytest.mark.parametrize(
    ("model", "batch_size", "epochs"),
    [("hybrid_vil", 256, 40), ("vin", 128, 40), ("fnet", 512, 100)],
)
def test_the_scripts_have_a_batch_size_for_each_variant(model, batch_size, epochs):
    config = recipe("vix_cifar10", model)
    assert (config.batch_size, config.epochs, config.sched) == (batch_size, epochs, "constant")
    assert (config.lr, config.weight_decay, config.crop_padding, config.flip) == (1e-3, 0.01, 0, 0)


def test_the_modern_recipe_has_what_has_come_since():
    config = recipe("modern_cifar10", "vit")
    assert config.model_fields == {"stochastic_depth": 0.1}
    assert (config.aa, config.cutmix, config.model_ema) == ("rand", 1.0, True)


@pytest.mark.parametrize("model", vix.list_models())
@pytest.mark.parametrize("dataset", ["digits", "tiny_imagenet", "modern_cifar10"])
def test_another_model_gets_the_fields_that_it_has(dataset, model):
    config = recipe(dataset, model)
    assert config.model == model
    assert config.model_fields.keys() <= set(field_names(PRESETS[model][0]))
    assert config.model_fields.items() <= RECIPES[dataset].model_fields.items()
    vix.create_model(model, **config.model_fields)


def test_another_model_trains_alike():
    ours, theirs = recipe("digits"), recipe("digits", "vit")
    assert (ours.epochs, ours.lr, ours.opt) == (theirs.epochs, theirs.lr, theirs.opt)


def test_a_variant_named_for_its_positions_keeps_them():
    assert recipe("digits").model_fields["position"] == "rotary_axial"
    assert "position" not in recipe("digits", "vit_rope").model_fields
    assert "position" not in recipe("digits", "fnet").model_fields


# Patches of 16 × 16 and more, and windows of 4 × 4 on a quarter of the map: not on 8 × 8 images.
TOO_LARGE = {
    "cait", "cross_vit", "crossformer", "crossformer_cifar", "deepvit", "dual_norm_vit",
    "efficient_vit", "efficient_vit_x", "hybrid_vin_imagenet", "pit",
}  # fmt: skip


@pytest.mark.parametrize("model", sorted(TOO_LARGE))
def test_a_model_for_larger_images_says_so(model):
    with pytest.raises(ValueError, match=r"does not divide|no whole windows"):
        resolve(recipe("digits", model), load_dataset("digits"))


@pytest.mark.parametrize("model", sorted({*vix.list_models()} - TOO_LARGE))
def test_the_recipe_for_digits_fits_digits(model):
    config, built = resolve(recipe("digits", model), load_dataset("digits"))
    assert built == vix.create_model(model, **config.model_fields)
    assert built.num_classes == 10


def test_an_unknown_data_set_gets_a_suggestion():
    with pytest.raises(ValueError, match=r"'cifar'.*'cifar10'"):
        recipe("cifar")


def test_an_unknown_model_gets_a_suggestion():
    with pytest.raises(ValueError, match=r"'fnet3d'.*'fnet2d'"):
        recipe("digits", "fnet3d")
