"""Training: a config, an optimizer, two pure steps, a `for` loop. Knows no model, no data set."""

from vix_flax.training.config import TrainConfig
from vix_flax.training.loop import evaluate, evaluate_own_loss, fit
from vix_flax.training.loss import accuracy, cross_entropy
from vix_flax.training.objective import Classify, Distill, OwnLoss
from vix_flax.training.optimizer import decay_mask, make_optimizer, make_schedule
from vix_flax.training.programs import StepPrograms
from vix_flax.training.state import TrainState, create_state
from vix_flax.training.step import eval_step, train_step

__all__ = [
    "Classify", "Distill", "OwnLoss", "StepPrograms", "TrainConfig", "TrainState", "accuracy",
    "create_state", "cross_entropy", "decay_mask", "eval_step", "evaluate", "evaluate_own_loss",
    "fit", "make_optimizer", "make_schedule", "train_step",
]  # fmt: skip
