"""The options of training: the model's dimensions and the schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import inf

from sgraf_deploy.config import ModelConfig, Module
from sgraf_deploy.errors import InputError
from sgraf_deploy.model.options import Plain


@dataclass(frozen=True)
class ModelOptions:
    """The dimensions that do not follow from the data; the defaults are the paper's."""

    module: Module = "SGR"
    embed: int = 1024
    sim_dim: int = 256
    word_dim: int = 300
    num_layers: int = 1
    bidirectional: bool = True
    sgr_steps: int = 3
    image_norm: bool = True
    text_norm: bool = True

    def config(self, *, regions: int, img_dim: int, vocab_size: int) -> ModelConfig:
        """The complete config, with the dimensions that follow from the data; SAF has no steps."""
        fields = asdict(self) | {"regions": regions, "img_dim": img_dim, "vocab_size": vocab_size}
        return ModelConfig(**fields | {"sgr_steps": self.sgr_steps * (self.module == "SGR")})


@dataclass(frozen=True)
class TrainOptions:
    """The schedule; the defaults are those of the authors' code for SGR.

    Adam starts with `learning_rate`, which is divided by ten every `lr_update` epochs; the gradient
    is clipped to a norm of `grad_clip`. The first `warmup_epochs` sum over all negatives, and then
    only the hardest count, unless `hardest` is off. A batch has `batch_size` captions with their
    images. Captions that fill no batch at the end of an epoch are left out of that epoch; every
    epoch is shuffled again.
    """

    model: ModelOptions = field(default_factory=ModelOptions)
    epochs: int = 40
    batch_size: int = 128
    learning_rate: float = 2e-4
    lr_update: int = 30
    margin: float = 0.2
    grad_clip: float = 2.0
    hardest: bool = True
    warmup_epochs: int = 0
    seed: int = 0
    data_name: str = "precomp"
    vocab_sha256: str | None = None
    """The hash by which an export recognises the vocabulary of the training."""
    features: Mapping[str, Plain] = field(default_factory=dict)
    """What the checkpoint remembers of the features, as `features.trained.Trained.to_opt` gives."""

    def __post_init__(self) -> None:
        """Raise InputError for a number out of range."""
        for name, least in (("epochs", 1), ("batch_size", 2), ("lr_update", 1)):
            _check(name, getattr(self, name), getattr(self, name) >= least, f"at least {least}")
        for name in ("learning_rate", "margin", "grad_clip"):
            _check(name, getattr(self, name), getattr(self, name) > 0, "a number above 0")
        for name in ("learning_rate", "margin"):
            _check(name, getattr(self, name), getattr(self, name) < inf, "a finite number")
        _check("seed", self.seed, -(2**63) <= self.seed < 2**63, "an integer of 64 bits")
        _check("warmup_epochs", self.warmup_epochs, self.warmup_epochs >= 0, "at least 0")

    def hardest_in(self, epoch: int) -> bool:
        """Whether epoch 0, 1, … counts only the hardest negatives."""
        return self.hardest and epoch >= self.warmup_epochs

    def learning_rate_in(self, epoch: int) -> float:
        """The learning rate of epoch 0, 1, …"""
        return float(self.learning_rate * 0.1 ** (epoch // self.lr_update))

    def to_opt(self) -> dict[str, Plain]:
        """The schedule under the names of the authors' options, for the checkpoint."""
        return {
            "margin": self.margin,
            "num_epochs": self.epochs,
            "batch_size": self.batch_size,
            "grad_clip": self.grad_clip,
            "learning_rate": self.learning_rate,
            "lr_update": self.lr_update,
            "max_violation": self.hardest,
            "warmup_epochs": self.warmup_epochs,
            "seed": self.seed,
            **({} if self.vocab_sha256 is None else {"vocab_sha256": self.vocab_sha256}),
            **self.features,
        }


def _check(name: str, value: object, valid: bool, expected: str) -> None:
    if not valid:
        raise InputError(name.replace("_", " "), expected=expected, got=value)
