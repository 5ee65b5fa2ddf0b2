"""Text that comes with Python and its packages: real domains of different kinds, without a network."""

import ast
import importlib.metadata
import importlib.util
import re
import sys
import sysconfig
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from ir3de.data.prose import docstring_prose
from ir3de.data.sources import TextSource, by_content, read_text

_TEST_FOLDERS = frozenset({"test", "tests", "testing", "idle_test"})
_NOT_LIBRARY = frozenset({"site-packages", "dist-packages", "__pycache__", "pydoc_data", "encodings", "lib2to3"})
_LICENCE_NAME = re.compile(r"licen[sc]e|copying|notice", re.IGNORECASE)


class _Installed(TextSource):
    """Files of an installation in the order of their content's hash, up to ``max_bytes`` of text."""

    max_bytes: int | None

    @abstractmethod
    def files(self) -> list[Path]:
        """Return the files that may be read."""

    @abstractmethod
    def texts(self, file: Path) -> Iterator[str]:
        """Yield the documents of one file."""

    def versions(self) -> list[str]:
        """Return what the text depends on besides the settings."""
        return [sys.version.split()[0]]

    def check(self) -> None:
        if self.max_bytes is not None and self.max_bytes < 1:
            raise ValueError(f"Expected `max_bytes` to be positive or null, but got {self.max_bytes}.")

    def identity(self) -> dict[str, Any]:
        settings = {name: value for name, value in vars(self).items() if name != "left_out"}
        return {"class": type(self).__name__, "settings": settings, "versions": self.versions()}

    def documents(self) -> Iterator[str]:
        self.left_out.clear()
        files = by_content(self.files())
        total = 0
        for number, file in enumerate(files):
            for text in self.texts(file):
                size = len(text.encode("utf-8", errors="surrogatepass"))
                if self.max_bytes is not None and total + size > self.max_bytes:
                    self.left_out["files beyond max_bytes"] = len(files) - number
                    return
                total += size
                yield text


class PythonSource(_Installed):
    """Source code of Python: every module is one document.

    Args:
        packages: installed packages to read. Empty means the standard library, without its tests, its
            tables of character encodings and other packages' code.
        max_bytes: how much to read. Modules are taken in the order of their content's hash until it is full.
    """

    def __init__(self, packages: list[str] | None = None, max_bytes: int | None = None) -> None:
        super().__init__()
        self.packages = packages or []
        self.max_bytes = max_bytes

    def check(self) -> None:
        super().check()
        for package in self.packages:
            package_folder(package)

    def versions(self) -> list[str]:
        return [*super().versions(), *package_versions(self.packages)]

    def files(self) -> list[Path]:
        if self.packages:
            return [file for package in self.packages for file in _modules(package_folder(package), _TEST_FOLDERS)]
        return _modules(Path(sysconfig.get_path("stdlib")), _TEST_FOLDERS | _NOT_LIBRARY)

    def texts(self, file: Path) -> Iterator[str]:
        yield read_text(file, "utf-8", "strict")


class Docstrings(_Installed):
    """The prose in the docstrings of installed packages: each docstring is one document, its code taken out.

    Modules are parsed, never imported. Code (doctests, fenced and literal blocks) is left out so that a domain of
    prose does not turn into a second domain of code.

    Args:
        packages: installed packages to read, without their tests.
        max_bytes: how much to read. Modules are taken in the order of their content's hash until it is full.
        min_chars: shorter prose is passed over (and counted): one line says little about its domain.
    """

    def __init__(self, packages: list[str], max_bytes: int | None = None, min_chars: int = 200) -> None:
        super().__init__()
        self.packages = packages
        self.max_bytes = max_bytes
        self.min_chars = min_chars

    def check(self) -> None:
        super().check()
        if not self.packages:
            raise ValueError("Expected at least one package whose docstrings to read, but `packages` is empty.")
        for package in self.packages:
            package_folder(package)

    def versions(self) -> list[str]:
        return package_versions(self.packages)

    def files(self) -> list[Path]:
        return [file for package in self.packages for file in _modules(package_folder(package), _TEST_FOLDERS)]

    def texts(self, file: Path) -> Iterator[str]:
        try:
            module = ast.parse(file.read_bytes())
        except (SyntaxError, ValueError):  # a template, or written for another version of Python
            self.left_out["modules that this Python cannot parse"] += 1
            return
        for node in _documented(module):
            prose = docstring_prose(ast.get_docstring(node) or "")
            if len(prose) >= self.min_chars:
                yield prose
            elif prose:
                self.left_out["docstrings below min_chars"] += 1


class LicenceTexts(_Installed):
    """The licence texts of the distributions that are installed: every file is one document.

    Args:
        max_bytes: how much to read. Files are taken in the order of their content's hash until it is full.
    """

    def __init__(self, max_bytes: int | None = None) -> None:
        super().__init__()
        self.max_bytes = max_bytes

    def versions(self) -> list[str]:
        return sorted({f"{one.name} {one.version}" for one in importlib.metadata.distributions()})

    def files(self) -> list[Path]:
        listed = {
            Path(str(one.locate_file(file)))
            for one in importlib.metadata.distributions()
            for file in one.files or []
            if ".dist-info" in str(file) and _LICENCE_NAME.search(file.name) and file.suffix not in (".py", ".json")
        }
        return sorted(file for file in listed if file.is_file())

    def texts(self, file: Path) -> Iterator[str]:
        yield read_text(file, "utf-8", "replace")


class PackageFiles(_Installed):
    """Text files that an installed package carries: every file is one document.

    Args:
        package: the installed package.
        pattern: which of its files to read, such as ``data/*.txt``.
        max_bytes: how much to read. Files are taken in the order of their content's hash until it is full.
        encoding: how the bytes are to be read.
        encoding_errors: ``strict`` stops at bytes that the encoding does not have; ``replace`` puts U+FFFD there.
    """

    def __init__(
        self,
        package: str,
        pattern: str = "**/*.txt",
        max_bytes: int | None = None,
        encoding: str = "utf-8",
        encoding_errors: Literal["strict", "replace"] = "strict",
    ) -> None:
        super().__init__()
        self.package = package
        self.pattern = pattern
        self.max_bytes = max_bytes
        self.encoding = encoding
        self.encoding_errors = encoding_errors

    def check(self) -> None:
        super().check()
        if not self.files():
            raise ValueError(f"Expected files that match `{self.pattern}` in the package {self.package}, found none.")

    def versions(self) -> list[str]:
        return package_versions([self.package])

    def files(self) -> list[Path]:
        return sorted(file for file in package_folder(self.package).glob(self.pattern) if file.is_file())

    def texts(self, file: Path) -> Iterator[str]:
        yield read_text(file, self.encoding, self.encoding_errors)


def package_folder(package: str) -> Path:
    """Return the folder of an installed package, without importing it.

    Raises:
        ValueError: if it is not installed or is a single module.
    """
    try:
        spec = importlib.util.find_spec(package)
    except (ModuleNotFoundError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"Expected the package `{package}`, but it is not installed. Run `pip install {package}`.")
    return Path(spec.submodule_search_locations[0])


def package_versions(packages: list[str]) -> list[str]:
    """Return name and version of the distributions that the packages come from."""
    owners = importlib.metadata.packages_distributions()
    names = sorted({name for package in packages for name in owners.get(package.split(".")[0], [])})
    return [f"{name} {importlib.metadata.version(name)}" for name in names]


def _modules(root: Path, skipped: frozenset[str]) -> list[Path]:
    return sorted(file for file in root.rglob("*.py") if not skipped.intersection(file.relative_to(root).parts))


def _documented(node: ast.Module | ast.ClassDef) -> Iterator[ast.Module | ast.ClassDef | ast.FunctionDef]:
    """Yield the module, its classes, functions and methods, in order; not the functions within functions."""
    yield node
    for child in node.body:
        if isinstance(child, ast.ClassDef):
            yield from _documented(child)
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child  # type: ignore[misc]  # an async function has a docstring all the same
