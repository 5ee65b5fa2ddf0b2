"""Certificates: what a saved router knows, in hashes, written with every change so that it can be proved later."""

import json
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ir3de.files import replace_file
from ir3de.routers import load_closed_form
from ir3de.routers.artifact import CONFIG, ROUTER, read_artifact

FOLDER = "certificates"
SUFFIX = ".json"
# The bytes of W are promised for equal counts on one of these only (DESIGN.md 3.2).
PLATFORM = {
    "machine": platform.machine(),
    "processor": torch.backends.cpu.get_cpu_capability(),
    "torch": torch.__version__,
}


@dataclass(frozen=True)
class Certificate:
    """The identity of a router (see ``ClosedFormRouter.identity``) with its hash, and the hash of what was solved.

    ``change`` says what led to it; ``platform`` where it was solved.
    """

    change: str
    identity: dict[str, Any]
    identity_hash: str
    router_hash: str
    platform: dict[str, str]

    @classmethod
    def of(cls, folder: Path, change: str) -> "Certificate":
        """Return the certificate of the router in ``folder``, as it is now."""
        artifact = read_artifact(folder)
        router = load_closed_form(folder)
        return cls(change, router.identity(), router.identity_hash(), artifact.sha256(ROUTER), PLATFORM)

    @classmethod
    def read(cls, path: Path) -> "Certificate":
        """Return the certificate in a file.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if the file is no certificate.
        """
        if not path.is_file():
            raise FileNotFoundError(
                f"Expected a saved router's folder or a certificate at `{path}`, but there is none."
            )
        try:
            return cls(**json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise ValueError(f"Expected a certificate in `{path}`, but it holds none ({error}).") from error

    def write(self, folder: Path) -> Path:
        """Write the certificate beside the router in ``folder``, numbered after those that are there."""
        existing = folder / FOLDER
        number = len(list(existing.glob(f"*{SUFFIX}"))) if existing.is_dir() else 0
        words = "-".join(part for part in self.change.replace("/", " ").split())
        path = existing / f"{number:04}-{words}{SUFFIX}"
        replace_file(path, (json.dumps(self.__dict__, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode())
        return path


def certify(folder: Path, change: str) -> Path:
    """Write a certificate of the router in ``folder`` as it is now, and return where."""
    return Certificate.of(folder, change).write(folder)


def certificate_of(path: Path) -> Certificate:
    """Return the certificate at ``path``, or that of the saved router at ``path``.

    Raises:
        FileNotFoundError: if there is neither.
        ValueError: if the router is damaged, or the file is no certificate.
    """
    return Certificate.of(path, "read") if (path / CONFIG).is_file() else Certificate.read(path)
