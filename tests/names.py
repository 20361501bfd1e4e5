"""Measures how a Python tree is named, by its syntax trees. The limits are in tests/shape/test_names.py."""

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


IRREGULAR_PARTICIPLES = _words(
    "told said sent found given kept held made seen heard taken come gone done begun written shown known "
    "spoken thrown drawn chosen hidden broken bound built brought bought caught felt fed fought gotten got had "
    "hurt laid led left lent lit lost meant met paid rung sold slept slid spent spun stood stuck struck taught "
    "thought understood won wound asked"
)
NOT_PARTICIPLES = _words(
    "embed speed feed need seed shed exceed proceed succeed bleed breed heed weed red bed token open even seven often"
)
PREDICATES = _words("is has was are can should must may needs on as if when until wait test")
VAGUE_NAMES = _words(
    "told said asked came heard born given made held own there found kept seen sent taken one other others "
    "more rest whole thing things stuff it that this what which who them both some any"
)
GENERIC_NAMES = _words(
    "value values data item items result results obj objs tmp res ret var val vals info stuff elem element entry thing"
)


@dataclass(frozen=True)
class Names:
    """Shares in percent: of function names, of distinct (function, local name) pairs, and of parameters."""

    participle_functions: float
    vague_locals: float
    vague_parameters: float
    generic_locals: float
    one_letter_locals: float


def measure(directory: Path) -> Names:
    """The names of all Python files below a directory."""
    functions: list[str] = []
    local_names: list[str] = []
    parameters: list[str] = []
    for path in python_files(directory):
        tree = ast.parse(path.read_text())
        for function in _functions(tree):
            if not function.name.startswith(("__", "test_")):
                functions.append(function.name)
            if not function.name.startswith("__"):
                parameters += _parameters(function)
        local_names += [name for _, name in _locals(tree)]
    return Names(
        _share(functions, is_participle),
        _share(local_names, lambda name: name.strip("_") in VAGUE_NAMES),
        _share(parameters, lambda name: name.strip("_") in VAGUE_NAMES),
        _share(local_names, lambda name: name.strip("_") in GENERIC_NAMES),
        _share(local_names, lambda name: len(name.strip("_")) == 1),
    )


def python_files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*.py") if "node_modules" not in path.parts)


def is_participle(name: str) -> bool:
    """Whether a function's name begins with a participle, such as `told` or `_asked_now`."""
    words = [word for word in name.strip("_").lower().split("_") if word]
    if not words or words[0] in PREDICATES or words[0] in NOT_PARTICIPLES:
        return False
    return words[0] in IRREGULAR_PARTICIPLES or (len(words[0]) > 4 and words[0].endswith("ed"))


def names_of_tests(directory: Path) -> Iterator[str]:
    for path in python_files(directory):
        yield from (f.name for f in _functions(ast.parse(path.read_text())) if f.name.startswith("test_"))


def public_names(path: Path) -> set[str]:
    """The functions and classes that a module defines for others."""
    tree = ast.parse(path.read_text())
    definitions = (node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef))
    return {node.name for node in definitions if not node.name.startswith("_")}


def _functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def _parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    arguments = function.args.posonlyargs + function.args.args + function.args.kwonlyargs
    return [argument.arg for argument in arguments if argument.arg not in ("self", "cls")]


def _locals(tree: ast.AST) -> set[tuple[int, str]]:
    pairs: set[tuple[int, str]] = set()

    def visit(node: ast.AST, scope: ast.AST | None) -> None:
        for child in ast.iter_child_nodes(node):
            is_scope = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store) and scope is not None:
                pairs.add((id(scope), child.id))
            if isinstance(child, ast.ExceptHandler) and child.name and scope is not None:
                pairs.add((id(scope), child.name))
            visit(child, child if is_scope else scope)

    visit(tree, None)
    return pairs


def _share(names: list[str], counts: Callable[[str], bool]) -> float:
    return 100 * sum(map(counts, names)) / max(1, len(names))
