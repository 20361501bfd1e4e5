"""Functions are thin: they import the layer and nothing of each other, and hold no errors' handling of their own."""

import ast
import sys
from pathlib import Path

import pytest

from local.template import REPOSITORY

FILES = sorted((REPOSITORY / "functions").glob("**/*.py"))
FROM_LAYERS = {"aiserver", "aws_lambda_powertools"}
MAX_LINES = 130  # of code; about 60 is the aim


def imported(tree: ast.AST) -> set[str]:
    """The top-level packages a file imports; a relative import is told as a dot."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." if node.level else (node.module or "").partition(".")[0])
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_a_function_imports_only_the_layer(path: Path) -> None:
    assert imported(ast.parse(path.read_text())) <= FROM_LAYERS | sys.stdlib_module_names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_a_function_leaves_errors_to_the_edge(path: Path) -> None:
    assert not [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Try)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_a_function_is_short_and_says_what_it_is_for(path: Path) -> None:
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text))
    assert len([line for line in text.splitlines() if line.strip()]) <= MAX_LINES
