"""A training run of two epochs that several tests look at."""

from vix_flax.training import TrainConfig

SIZES = dict(patch_size=4, dim=16, depth=1, heads=1, dim_head=8, mlp_dim=16, dropout=0.0)
CONFIG = TrainConfig(
    model="vit",
    model_fields=SIZES,
    epochs=2,
    batch_size=50,
    lr=1e-2,
    model_ema=True,
    model_ema_decay=0.8,
)
