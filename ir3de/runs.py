"""Where a run's results are: ``runs/<name>/version_N``, with links in ``runs/<name>`` to what the newest one holds."""

import os
from dataclasses import dataclass
from pathlib import Path

INHERITED = "IR3DE_RUN_FOLDER"  # tells the processes that a DDP launcher starts where their run is


@dataclass(frozen=True, slots=True)
class RunFolder:
    """One version of a named run; ``runs/<name>/router`` and the like always lead to the newest version."""

    path: Path

    @classmethod
    def create(cls, root: Path, name: str) -> "RunFolder":
        """Make the next version folder, or return the one that the launching process made."""
        base = root / name
        if global_rank() > 0:  # under torchrun and SLURM nobody tells; rank 0 writes all files
            return cls(Path(os.environ.get(INHERITED, base / "version_of_rank_0")))
        number = max(cls._versions(base), default=-1) + 1
        while True:
            path = base / f"version_{number}"
            try:
                path.mkdir(parents=True)
                break
            except FileExistsError:  # another run of this name began meanwhile
                number += 1
        os.environ[INHERITED] = str(path)
        return cls(path)

    @classmethod
    def newest(cls, root: Path, name: str) -> "RunFolder":
        """Return the newest version that has a router.

        Raises:
            FileNotFoundError: if there is none.
        """
        base = root / name
        for number in sorted(cls._versions(base), reverse=True):
            if (base / f"version_{number}" / "router" / "config.json").is_file():
                return cls(base / f"version_{number}")
        raise FileNotFoundError(
            f"Expected a fitted router in `{base}`, but there is none. Run `python main.py fit` with this config first."
        )

    def publish(self) -> None:
        """Let the name's folder lead to this version's files, and to no other version's."""
        base = self.path.parent
        for link in base.iterdir():
            if link.is_symlink():
                link.unlink()
        for entry in sorted(self.path.iterdir()):
            if not entry.name.startswith("."):
                (base / entry.name).symlink_to(Path(self.path.name) / entry.name)

    @staticmethod
    def _versions(base: Path) -> list[int]:
        numbers = (path.name.removeprefix("version_") for path in base.glob("version_*"))
        return [int(number) for number in numbers if number.isdecimal()]


def global_rank() -> int:
    """Return this process's rank, which a launcher has put into the environment; 0 where there is one process."""
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        if name in os.environ:
            return int(os.environ[name])
    return 0
