"""Turns each comparison, `and`, `or`, `not` and number of failing over, streaming and translating: a test must fail.

`make mutate` runs it after tests/mutate.py and prints a line for each; it exits 1 when one is not held.
"""

import ast
import importlib.machinery
import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from tests.mutate import HELD, PASSED, TARGET, run

FAILING_OVER = [
    ["tests/unit/test_ask.py", "tests/unit/test_concurrency.py", "tests/unit/test_breaker.py"],
    ["tests/unit/test_breaker_trials.py", "tests/unit/test_breaker_store.py", "tests/unit/test_breaker_races.py"],
    ["tests/unit/test_a_day_of_failures.py", "tests/unit/test_jobs.py", "tests/unit/test_waits.py"],
]
STREAMING = [
    ["tests/unit/test_sse.py", "tests/unit/test_relay.py", "tests/unit/test_ticking.py", "tests/unit/test_watch.py"],
    ["tests/unit/test_answer_streams.py", "tests/providers/test_translation.py", "tests/providers/test_streams.py"],
]
TRANSLATING = [
    ["tests/vendors/test_golden.py", "tests/vendors/test_words.py", "tests/vendors/test_anthropic.py"],
    ["tests/vendors/test_there_and_back.py", "tests/vendors/test_nonsense.py", "tests/vendors/test_lists.py"],
    ["tests/vendors/test_streams.py", "tests/providers/test_conformance.py", "tests/vendors/test_bedrock_wire.py"],
]
RULES = {
    "aiserver.providers.circuit": FAILING_OVER,
    "aiserver.usecases.failover": FAILING_OVER,
    "aiserver.usecases.stream_response": STREAMING,
    "aiserver.usecases.watch_job": STREAMING,
    "aiserver.providers.openai_stream": STREAMING,
    "aiserver.providers.stream": STREAMING,
    "aiserver.wire.sse": STREAMING,
    "aiserver.providers.translation.chat": TRANSLATING,
    "aiserver.providers.translation.validate": TRANSLATING,
    "aiserver.providers.translation.turns": TRANSLATING,
    "aiserver.providers.translation.completion": TRANSLATING,
    "aiserver.providers.translation.client": TRANSLATING,
}
TURNED: dict[type[ast.AST], type[Any]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.And: ast.Or,
    ast.Or: ast.And,
}


class Turn(ast.NodeTransformer):
    """Turns the one of that number; `seen` are all that could be, each as it is written."""

    def __init__(self, number: int = -1) -> None:
        self.seen: list[str] = []
        self._number = number

    def _is_turn(self, told: ast.AST) -> bool:
        self.seen.append(ast.unparse(told))
        return len(self.seen) - 1 == self._number

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        if type(node.ops[0]) in TURNED and self._is_turn(node):
            node.ops[0] = TURNED[type(node.ops[0])]()
        return node

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        self.generic_visit(node)
        if self._is_turn(node):
            node.op = TURNED[type(node.op)]()
        return node

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, int) and self._is_turn(node):
            value = node.value.value
            node.value = ast.Constant(not value if isinstance(value, bool) else value + 1)
        return node

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        return node.operand if isinstance(node.op, ast.Not) and self._is_turn(node) else node


class _Turned(importlib.machinery.SourceFileLoader):
    """Loads a module with that one turned."""

    number = -1

    def get_code(self, fullname: str) -> CodeType:
        tree = Turn(self.number).visit(ast.parse(self.get_data(self.path)))
        return compile(ast.fix_missing_locations(tree), self.path, "exec")


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        name, _, number = os.environ[TARGET].partition(":")
        if fullname != name:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        assert spec
        assert spec.origin
        spec.loader = loader = _Turned(fullname, spec.origin)
        loader.number = int(number)
        return spec


if TARGET in os.environ:  # as a pytest plugin, before anything else is imported
    sys.meta_path.insert(0, _Finder())


def main() -> int:
    suites = [*FAILING_OVER, *STREAMING, *TRANSLATING]
    if broken := [suite for suite in suites if run("none", suite, "tests.mutate_rules") != PASSED]:
        print(f"these do not pass as they are: {broken}")
        return 1
    survived = 0
    for module, suites in RULES.items():
        turn = Turn()
        turn.visit(ast.parse(Path("layers/aiserver", *module.split(".")).with_suffix(".py").read_text()))
        for number, told in enumerate(turn.seen):
            target = f"{module}:{number}"
            ends = (run(target, suite, "tests.mutate_rules") for suite in suites)
            ended = next((end for end in ends if end != PASSED), PASSED)
            print(f"{ended:18}{module.split('.')[-1]} with the opposite of {told}", flush=True)
            survived += ended not in HELD
    print(f"{survived} that no test holds" if survived else "every rule is held by a test")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
