"""Draws the layers in docs/architecture.md from the import-linter contract in pyproject.toml: `python -m docs.layers`.

`--check` writes nothing and exits 1 when the page is stale; used by `make check`.
"""

import ast
import sys
import tomllib
from pathlib import Path

from docs.generate import write

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "layers" / "aiserver" / "aiserver"
PAGE = REPOSITORY / "docs" / "architecture.md"
CONTRACT = "Imports only go down"
FUNCTIONS = "functions"


def main(arguments: list[str]) -> int:
    return write(PAGE, "docs/layers.py", ["\n".join(["```", *_drawing(_layers()), "```"])], arguments)


def _layers() -> list[list[str]]:
    """The modules of each layer of the contract, from the top."""
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    (contract,) = [contract for contract in settings["contracts"] if contract["name"] == CONTRACT]
    return [layer.split(" | ") for layer in contract["layers"]]


def _drawing(layers: list[list[str]]) -> list[str]:
    width = max(len(module) for layer in layers for module in layer)
    lines = [f"{FUNCTIONS:{width}}  {_functions()}: each parses, calls one use case and responds"]
    for layer in layers:
        lines.append("─" * width)
        lines += [f"{module:{width}}  {_first_sentence(module)}" for module in sorted(layer)]
    return lines


def _functions() -> str:
    return ", ".join(sorted(folder.name for folder in (REPOSITORY / FUNCTIONS).iterdir() if folder.is_dir()))


def _first_sentence(module: str) -> str:
    """The first sentence of a module's or package's docstring."""
    file = PACKAGE / f"{module}.py"
    source = (file if file.exists() else PACKAGE / module / "__init__.py").read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(source)) or ""
    return " ".join(docstring.split("\n\n")[0].split()).split(". ")[0].rstrip(".")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
