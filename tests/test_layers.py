"""Imports flow one way: main.py → callbacks → ir3de, and within ir3de from outer parts to inner ones."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LEVELS = {
    "types": 0, "files": 0, "console": 0, "rank_watch": 0, "hub_repositories": 0,
    "functional": 1, "pretrained": 1, "strategy": 1, "isolation": 1,
    "statistics": 2, "experts": 2, "metrics": 2,
    "data": 3, "routers": 3, "serving": 3,
    "modules": 4,
    "evaluation": 5, "runs": 4, "configs": 5, "arguments": 6, "tracking": 5, "suggestions": 5,
    "prepare": 6, "upkeep": 6, "comparison": 6, "hub": 6, "reasoning": 6, "gateway": 6,
    "compiling": 5, "route_command": 6, "commands": 7, "trainer": 7, "settings": 7, "config_commands": 8,
    "cli": 9,
}  # fmt: skip
FILES = sorted(ROOT.glob("ir3de/**/*.py")) + sorted(ROOT.glob("callbacks/*.py"))


def _imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            pytest.fail(f"{path} has a relative import")
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_inwards(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    for module in _imports(path):
        top, _, rest = module.partition(".")
        if parts[0] == "ir3de":
            assert top not in ("callbacks", "main", "tests"), f"{path} imports {module}"
            if top == "ir3de" and rest and len(parts) > 1 and parts[1] != "__init__":
                mine, theirs = parts[1], rest.split(".")[0]
                assert mine == theirs or LEVELS[theirs] < LEVELS[mine], (
                    f"{path} (level {LEVELS[mine]}) imports {module}"
                )
        else:
            assert top not in ("main", "tests"), f"{path} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_begin_with_a_docstring_and_stay_short(path):
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)) is not None
    assert text.count("\n") <= 310, "is there a second idea in it that wants its own file?"
