"""From a golden fixture of a wrapper to the wrapper, its variables, and the plain model within."""

import golden_models
import numpy as np

import vix_flax as vix
from vix_flax.wrappers import (
    BYOL,
    MPP,
    DistillableEfficientViT,
    DistillableT2TViT,
    DistillableViT,
    DistillWrapper,
)
from vix_flax.wrappers.mpp import Draws

STUDENTS = {
    kind.__name__: kind for kind in (DistillableViT, DistillableT2TViT, DistillableEfficientViT)
}


def inner(weights, prefix):
    """The part of a state dict under a prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}


def dense(weights, name):
    return {"kernel": weights[f"{name}.weight"].T, "bias": weights[f"{name}.bias"]}


def norm(weights, name):
    return {"scale": weights[f"{name}.weight"], "bias": weights[f"{name}.bias"]}


def statistics(weights, name):
    return {"mean": weights[f"{name}.running_mean"], "var": weights[f"{name}.running_var"]}


def distill(arrays, config):
    """(wrapper, variables, student, its variables)"""
    weights = golden_models.weights(arrays)
    fields = {k: golden_models.plain(v) for k, v in config["student"].items()}
    cls = STUDENTS[config["meta"]["student_cls"]]
    if cls is DistillableEfficientViT:  # its encoder is a ViT's, with heads of 16
        layers = inner(weights, "student.transformer.layers.")
        fields["transformer"] = vix.Transformer(
            dim=fields["dim"],
            depth=1 + max(int(name.split(".")[0]) for name in layers),
            heads=len(layers["0.0.to_qkv.weight"]) // 48,
            dim_head=16,
            mlp_dim=len(layers["0.1.net.1.weight"]),
        )
    student = cls(**fields)
    plain = vix.convert.from_torch(student.to_vit(), inner(weights, "student."))
    params = {
        "student": plain["params"],
        "distillation_token": weights["distillation_token"],
        "distill_mlp": dense(weights, "distill_mlp.1"),
    }
    wrapper = DistillWrapper(student=student, **config["wrapper"])
    if wrapper.mlp_layernorm:
        params["distill_norm"] = norm(weights, "distill_mlp.0")
    return wrapper, {"params": params}, student, plain


def mpp(arrays, config):
    """(wrapper, variables, draws)"""
    weights = golden_models.weights(arrays)
    cls = golden_models.PACKAGE[config["meta"]["transformer_cls"]]
    model = cls(**{k: golden_models.plain(v) for k, v in config["transformer"].items()})
    plain = vix.convert.from_torch(model, inner(weights, "transformer."))
    params = {
        "transformer": plain["params"],
        "mask_token": weights["mask_token"],
        "to_bits": dense(weights, "to_bits"),
    }
    draws = ("u_mask", "u_random_patch", "random_patch_index", "u_replace")
    return (
        MPP(transformer=model, **config["mpp"]),
        {"params": params},
        Draws(*(arrays[name] for name in draws)),
    )


def byol(arrays, config, weights=None):
    """(wrapper, variables); `weights` instead of the fixture's."""
    weights = weights or golden_models.weights(arrays)
    given, net = config["byol"], vix.DualNormViT(**config["vit"])
    head = "online_predictor.0.weight" in weights  # byol-pytorch of today
    simplicial = "online_encoder.projector.2.0.weight" in weights
    wrapper = BYOL(
        net=net,
        projection_size=given["projection_size"],
        projection_hidden_size=given["projection_hidden_size"],
        moving_average_decay=given["moving_average_decay"],
        simplices=given["sem_num_simplices"] if simplicial else 0,
        simplex_dim=given.get("sem_simplex_dim", 8),
        joint_views=head,
    )

    def mlp(name):
        params = {"dense1": dense(weights, f"{name}0"), "norm": norm(weights, f"{name}1")}
        params["dense2"] = dense(weights, f"{name}3")
        return params, {"norm": statistics(weights, f"{name}1")}

    def encoder(name):
        plain = vix.convert.from_torch(net, inner(weights, f"{name}net."))
        params, stats = {"net": plain["params"]}, {}
        projector = f"{name}projector."
        if simplicial:
            params["simplicial"] = {
                "dense": dense(weights, f"{projector}0.0"),
                "norm": norm(weights, f"{projector}0.1"),
            }
            stats["simplicial"] = {"norm": statistics(weights, f"{projector}0.1")}
            projector += "2."
        elif f"{projector}net.0.weight" in weights:
            projector += "net."
        params["projector"], stats["projector"] = mlp(projector)
        return params, stats

    online, online_stats = encoder("online_encoder.")
    predictor, predictor_stats = mlp("online_predictor." + ("" if head else "net."))
    target, target_stats = encoder("target_encoder.")
    return wrapper, {
        "params": {"online": online, "predictor": predictor},
        "batch_stats": {"online": online_stats, "predictor": predictor_stats},
        "target": {"encoder": {"params": target, "batch_stats": target_stats}},
    }


def biased(before, after, count):
    """Torch's running variance as Flax keeps it: without the factor N / (N − 1) in a batch's."""
    return 0.9 * before + (np.asarray(after) - 0.9 * before) * (count - 1) / count
