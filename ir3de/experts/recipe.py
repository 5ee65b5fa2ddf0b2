"""How experts are trained: a trunk on all domains together, then one branch per domain (the paper's recipe)."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ir3de.experts.presets import preset_name


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of training.

    Args:
        steps: Optimizer steps.
        learning_rate: Its peak; a linear warm-up leads to it and a cosine down to a tenth of it.
        warmup_steps: Steps of the warm-up.
        frozen: Parts of parameter names that are not trained, e.g. ``self_attn``.
    """

    steps: int
    learning_rate: float
    warmup_steps: int
    frozen: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"Expected `steps` of a stage to be at least 1, but got {self.steps}.")
        if not 0 <= self.warmup_steps <= self.steps:
            raise ValueError(
                f"Expected `warmup_steps` to lie between 0 and `steps` ({self.steps}), but got {self.warmup_steps}."
                " Lower it together with the steps."
            )
        if self.learning_rate <= 0:
            raise ValueError(f"Expected `learning_rate` to be positive, but got {self.learning_rate}.")


def _trunk() -> Stage:
    return Stage(steps=20_000, learning_rate=6e-4, warmup_steps=1000)


def _branch() -> Stage:
    return Stage(steps=1000, learning_rate=6e-5, warmup_steps=50, frozen=["self_attn"])


@dataclass(frozen=True, kw_only=True)
class ExpertRecipe:
    """How to train a bank of experts. The defaults are the paper's, but for what its GPUs could carry.

    Args:
        preset: Size of the Llama, in parameters without embeddings (the table is in docs/experts.md).
        context_length: Tokens of the longest sequence that an expert takes.
        batch_size: Sequences of an optimizer step's batch, over all processes together.
        trunk: The stage on all domains together, from random weights.
        branch: The stage of each domain, from the trunk; the paper freezes the attention.
        balance: In a batch of the trunk, ``domain`` takes equally many sequences from each domain, so that a small
            one is not drowned; ``none`` takes sequences as often as they occur.
        weight_decay: AdamW's, on matrices; vectors (the norms) have none.
        seed: Decides the initial weights and the order of the batches, together with each stage's name.
        checkpoint_every_n_steps: How often a stage leaves a checkpoint, from which a stopped run goes on.
        validation_sequences: At most so many of a domain's validation sequences measure the perplexity.
        validate_every_n_steps: Measure the validation perplexity during a stage as well, after so many optimizer steps
            each; null measures it at the end only.
        early_stopping_patience: End a stage after so many measurements without a better perplexity; null trains all
            steps.
        keep: Which weights become the expert: those of the `last` step, as published, or of the `best` measurement.
            Where they differ the others lie in a folder of that name inside the expert's.
        gradient_checkpointing: Compute activations again in the backward pass instead of keeping them.
        compile: Compile the model with torch.compile; it needs a C++ compiler.
    """

    preset: str | float = "115e6"
    context_length: int = 1024
    batch_size: int = 64
    trunk: Stage = field(default_factory=_trunk)
    branch: Stage = field(default_factory=_branch)
    balance: Literal["domain", "none"] = "domain"
    weight_decay: float = 0.1
    seed: int = 42
    checkpoint_every_n_steps: int = 500
    validation_sequences: int = 256
    validate_every_n_steps: int | None = None
    early_stopping_patience: int | None = None
    keep: Literal["last", "best"] = "last"
    gradient_checkpointing: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        for name in ("batch_size", "checkpoint_every_n_steps", "validation_sequences"):
            if getattr(self, name) < 1:
                raise ValueError(f"Expected `experts.module.{name}` to be at least 1, but got {getattr(self, name)}.")
        for name in ("validate_every_n_steps", "early_stopping_patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"Expected `experts.module.{name}` to be at least 1 or null, but got {value}.")
        if self.validate_every_n_steps is None and (self.early_stopping_patience is not None or self.keep == "best"):
            raise ValueError(
                "`experts.module.early_stopping_patience` and `keep: best` go by the perplexity during a stage."
                " Set `experts.module.validate_every_n_steps`."
            )
        if self.context_length < 2:
            raise ValueError(
                f"Expected `experts.module.context_length` to be at least 2, but got {self.context_length}."
            )
        if self.balance not in ("domain", "none"):
            raise ValueError(f"Expected `experts.module.balance` to be `domain` or `none`, but got `{self.balance}`.")

    def identity(self, stage: Stage) -> dict[str, Any]:
        """Return what decides the weights of a stage: equal identities, data and start give the same expert."""
        measured = {
            "validate_every_n_steps": self.validate_every_n_steps,
            "early_stopping_patience": self.early_stopping_patience,
            "validation_sequences": self.validation_sequences,
        }
        chosen = self.keep == "best" or self.early_stopping_patience is not None
        return {
            "keep": self.keep,
            **(measured if chosen else {}),
            "preset": preset_name(self.preset),
            "context_length": self.context_length,
            "batch_size": self.batch_size,
            **{f"stage.{name}": value for name, value in asdict(stage).items()},
            "weight_decay": self.weight_decay,
            "seed": self.seed,
        }
