"""Functions are thin: they import only the layer, not each other, and have no error handling."""

import ast
import sys
from pathlib import Path

import pytest

from local.template import REPOSITORY

FILES = sorted((REPOSITORY / "functions").glob("**/*.py"))
FROM_LAYERS = {"aiserver", "aws_lambda_powertools"}
MAX_LINES = 130  # of code; the target is about 60


def top_level_imports(tree: ast.AST) -> set[str]:
    """Return the top-level packages that a file imports; a relative import is a dot."""
    packages: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            packages |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            packages.add("." if node.level else (node.module or "").partition(".")[0])
    return packages


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_function_imports_only_the_layer(path: Path) -> None:
    assert top_level_imports(ast.parse(path.read_text())) <= FROM_LAYERS | sys.stdlib_module_names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_function_leaves_errors_to_the_http_api(path: Path) -> None:
    assert not [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Try)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_function_is_short_and_has_a_docstring(path: Path) -> None:
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text))
    assert len([line for line in text.splitlines() if line.strip()]) <= MAX_LINES
