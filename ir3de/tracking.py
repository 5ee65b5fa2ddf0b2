"""How a run is tracked: metrics as CSV beside it, and a run in Weights & Biases where that is asked for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger

from ir3de.runs import global_rank


@dataclass(frozen=True)
class Tracking:
    """How a run is tracked by Weights & Biases.

    Args:
        mode: `offline` writes a run that `wandb sync` uploads, `online` needs an account, `disabled` writes none.
        project: The project that runs belong to.
        entity: The team or user; null is the account's default.
    """

    mode: Literal["offline", "online", "disabled"] = "disabled"
    project: str = "ir3de"
    entity: str | None = None


def make_loggers(tracking: Tracking, folder: Path, name: str, *, command: str, stage: str | None) -> list[Logger]:
    """Return the loggers of a command, or of a stage of expert training, which is a run of its own in W&B.

    Raises:
        ValueError: if W&B is asked for and not installed.
    """
    of = stage or command
    loggers: list[Logger] = [
        CSVLogger(str(folder / "logs"), name=stage) if stage else CSVLogger(str(folder), name="logs", version=of)
    ]
    if tracking.mode != "disabled":
        if global_rank() == 0:
            folder.mkdir(parents=True, exist_ok=True)
        finish_wandb()
        loggers.append(
            WandbLogger(
                name=f"{name}/{of}",
                save_dir=str(folder),
                offline=tracking.mode == "offline",
                project=tracking.project,
                entity=tracking.entity,
                group=name,
                job_type=command,
            )
        )
    return loggers


def finish_wandb() -> None:
    """End the run of the stage before, so that the next one is a run of its own.

    Raises:
        ValueError: if W&B is not installed.
    """
    try:
        import wandb  # noqa: PLC0415 - everything else works without it
    except ImportError:
        raise ValueError(
            "`wandb.mode` asks for a W&B run, but the package wandb is not installed. Run `pip install wandb`, or set"
            " `wandb.mode: disabled`."
        ) from None
    if wandb.run is not None:
        wandb.finish()
