"""What a training run is, as one frozen value: saved in `config.json`, changed by flags."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args, get_origin, get_type_hints

from vix_flax.suggest import did_you_mean
from vix_flax.training.mesh import parse_mesh
from vix_flax.training.optimizer import OPTIMIZERS, SCHEDULES

OBJECTIVES = ("classify", "mpp", "byol")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A model on a data set, and how it is trained. Names are timm's.

    Raises:
        ValueError: a field that is out of range or unknown; names it and what would do.
    """

    model: str = "vin"
    model_fields: Mapping[str, Any] = field(default_factory=dict)
    dataset: str = "digits"
    data_dir: str | None = None
    img_size: int | None = None  # of `folder`, whose images have any size; None: 64
    on_bad_image: str | None = None  # "skip" what cannot be decoded; None: it is an error
    loader: str | None = None  # "memory", "device" or "stream"; None: by size
    epochs: int = 40
    batch_size: int = 128
    grad_accum_steps: int = 1  # parts that a batch is worked through in
    steps_at_once: int = 1  # that the device takes before it asks for more; loader="device"
    mesh: str | None = None  # devices, as "data=4,fsdp=2"; None: all of them, along data
    memory_limit: float | None = None  # GiB of each device that a step may need; None: all it has
    fit: bool = False  # change remat, grad_accum_steps, batch_size until a step does not need more
    opt: str = "adamw"
    lr: float = 1e-3  # the highest, after warm-up
    min_lr: float = 0.0  # the last, of a decaying schedule
    sched: str = "cosine"
    warmup_epochs: float = 0.0
    layer_decay: float = 1.0  # of the learning rate, from each layer to the one before it
    weight_decay: float = 0.01  # not of norms, biases, tokens and positions
    clip_grad: float | None = None  # largest global norm of the gradient; None: not clipped
    smoothing: float = 0.0  # of the labels
    crop_padding: int = 0  # pixels; 0: no random crop
    flip: bool = False  # random mirroring
    min_crop: float | None = None  # least share of the area of a random resized crop
    color_jitter: float = 0.0  # of brightness, contrast and saturation
    aa: str | None = None  # a policy: "rand" (RandAugment) or "trivial" (TrivialAugment)
    aa_magnitude: int = 9  # of RandAugment, 0 to 30
    reprob: float = 0.0  # share of the images in which a rectangle is erased
    mixup: float = 0.0  # alpha
    cutmix: float = 0.0  # alpha; with mixup, either of them for each batch
    model_ema: bool = False  # evaluate an exponential moving average of the parameters
    model_ema_decay: float = 0.999  # per step
    seed: int = 0
    deterministic: bool = False  # also on a GPU, whose fastest programs add in any order
    keep: int = 1  # newest checkpoints, and as many of the best
    init_from: str | None = None  # a run to start from, under a new head if classes differ
    swap: str | None = None  # a run to start from, with another attention
    objective: str = "classify"  # or without labels: "mpp", "byol"
    objective_options: Mapping[str, Any] = field(default_factory=dict)  # fields of MPP or BYOL
    teacher: str | None = None  # a run to learn from beside the labels; "self": the swapped one
    distill: str = "soft"  # the teacher's probabilities, or "hard": its decisions
    distill_alpha: float = 0.5  # the teacher's share of the loss
    distill_temperature: float = 1.0

    def __post_init__(self):
        hints = get_type_hints(type(self))
        for spec in dataclasses.fields(self):
            self._check_type(spec.name, hints[spec.name])
        for name in ("epochs", "batch_size", "grad_accum_steps", "steps_at_once", "lr", "keep"):
            self._require(name, getattr(self, name) > 0, "positive")
        for name in ("min_lr", "warmup_epochs", "weight_decay", "crop_padding", "seed"):
            self._require(name, getattr(self, name) >= 0, "at least 0")
        for name in ("color_jitter", "mixup", "cutmix"):
            self._require(name, getattr(self, name) >= 0, "at least 0")
        self._require("reprob", 0 <= self.reprob <= 1, "from 0 to 1")
        self._require("aa", self.aa in (None, "rand", "trivial"), "rand, trivial or None")
        self._require(
            "loader",
            self.loader in (None, "memory", "device", "stream"),
            "memory, device, stream or None",
        )
        self._require("aa_magnitude", 0 <= self.aa_magnitude <= 30, "from 0 to 30")
        self._require(
            "min_crop", self.min_crop is None or 0 < self.min_crop <= 1, "above 0 and at most 1"
        )
        self._require("layer_decay", 0 < self.layer_decay <= 1, "above 0 and at most 1")
        self._require(
            "memory_limit", self.memory_limit is None or self.memory_limit > 0, "positive or None"
        )
        if self.mesh is not None:
            parse_mesh(self.mesh)
        self._require(
            "steps_at_once",
            self.steps_at_once == 1 or self.loader == "device",
            "1, or loader 'device'",
        )
        for name in ("smoothing", "model_ema_decay"):
            self._require(name, 0 <= getattr(self, name) < 1, "at least 0 and below 1")
        self._require("seed", self.seed < 2**32, "below 2**32")
        self._require("min_lr", self.min_lr <= self.lr, f"at most lr={self.lr}")
        self._require("clip_grad", self.clip_grad is None or self.clip_grad > 0, "positive or None")
        self._require(
            "warmup_epochs", self.warmup_epochs < self.epochs, f"below epochs={self.epochs}"
        )
        self._require("distill_alpha", 0 <= self.distill_alpha <= 1, "from 0 to 1")
        self._require("distill_temperature", self.distill_temperature > 0, "positive")
        self._require(
            "teacher", self.teacher != "self" or self.swap is not None, "a run; 'self' needs swap"
        )
        if self.init_from and self.swap:
            raise ValueError("init_from and swap both say where to start: give one of them")
        for name, known in (
            ("opt", OPTIMIZERS),
            ("sched", SCHEDULES),
            ("distill", ("soft", "hard")),
            ("objective", OBJECTIVES),
        ):
            value = getattr(self, name)
            if value not in known:
                raise ValueError(f"{name}={value!r} is unknown" + did_you_mean(value, known))
        if self.opt == "schedule_free_adamw":
            self._require("sched", self.sched == "constant", f"constant with opt={self.opt!r}")
            self._require("model_ema", not self.model_ema, f"False: {self.opt} averages by itself")
        if self.objective == "classify":
            self._require("objective_options", not self.objective_options, "empty to classify")
            return
        self._require("batch_size", self.objective != "byol" or self.batch_size > 1, "2 or more")
        unused = ["init_from", "swap", "teacher", "mixup", "cutmix"]
        if self.objective == "byol":  # draws views of its own
            unused += ["min_crop", "color_jitter", "aa", "reprob"]
            self._require("grad_accum_steps", self.grad_accum_steps == 1, "1 with byol")
        self._require("layer_decay", self.layer_decay == 1, f"1 with {self.objective}")
        for name in unused:
            if getattr(self, name):
                raise ValueError(
                    f"objective={self.objective!r} has no use for {name}: leave it out"
                )

    def for_epochs(self, epochs: int) -> "TrainConfig":
        """The same, cut or stretched to so many epochs: the warm-up keeps its share of them."""
        warmup = self.warmup_epochs * epochs / self.epochs
        return dataclasses.replace(self, epochs=epochs, warmup_epochs=warmup)

    def _check_type(self, name: str, hint: Any) -> None:
        value, kinds = getattr(self, name), get_args(hint) or (hint,)
        if get_origin(hint) is Mapping:
            kinds = (Mapping,)
        accepted = (*kinds, int) if float in kinds else kinds
        fits = isinstance(value, accepted) and (not isinstance(value, bool) or bool in kinds)
        if isinstance(value, float):
            fits = fits and math.isfinite(value)
        self._require(name, fits, " or ".join(kind.__name__ for kind in kinds))

    def _require(self, name: str, holds: bool, what: str) -> None:
        if not holds:
            raise ValueError(f"{name}={getattr(self, name)!r} must be {what}")
