"""Mutation test of failover, streaming and translation: inverts comparisons, `and`, `or`, `not` and constants.

`make mutate` runs it after tests/mutate.py and prints one line per mutant. It exits 1 when a mutant survives.
"""

import ast
import importlib
import importlib.machinery
import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from tests.mutate import DETECTED, SURVIVED, TARGET, run

PRELOADED = (
    "anthropic",
    "boto3",
    "google.genai",
    "httpx",
    "hypothesis",
    "moto",
    "openai",
    "pydantic",
)  # by all children

FAILOVER = [
    ["tests/unit/test_failover.py", "tests/unit/test_concurrency.py", "tests/unit/test_breaker.py"],
    ["tests/unit/test_breaker_probes.py", "tests/unit/test_breaker_store.py", "tests/unit/test_breaker_races.py"],
    ["tests/unit/test_fair_breaker.py", "tests/unit/test_breaker_reference.py"],
    ["tests/unit/test_failure_timeline.py", "tests/unit/test_jobs.py", "tests/unit/test_waits.py"],
]
ROUTING = [
    ["tests/unit/test_providers.py", "tests/unit/test_least_loaded.py", "tests/unit/test_supported_requests.py"],
    *FAILOVER,
]
STREAMING = [
    [
        "tests/unit/test_sse.py",
        "tests/unit/test_stream_response.py",
        "tests/unit/test_background_reader.py",
        "tests/unit/test_watch.py",
    ],
    ["tests/unit/test_complete_streams.py", "tests/providers/test_translation.py", "tests/providers/test_streams.py"],
]
TRANSLATION = [
    ["tests/vendors/test_golden.py", "tests/vendors/test_words.py", "tests/vendors/test_anthropic.py"],
    ["tests/vendors/test_there_and_back.py", "tests/vendors/test_nonsense.py", "tests/vendors/test_lists.py"],
    ["tests/vendors/test_streams.py", "tests/providers/test_conformance.py", "tests/vendors/test_bedrock_wire.py"],
]
# By module, the fastest suite first: its tests at the limits kill nearly every mutant.
RULES = {
    "aiserver.circuit_breaker.circuit": [["tests/unit/test_circuit_limits.py"], *FAILOVER],
    "aiserver.routing.selection": [["tests/unit/test_selection_limits.py"], *ROUTING],
    "aiserver.routing.admission": [["tests/unit/test_admission_limits.py"], *FAILOVER],
    "aiserver.routing.failover": [["tests/unit/test_failover_limits.py"], *FAILOVER],
    "aiserver.usecases.stream_response": [["tests/unit/test_stream_limits.py"], *STREAMING],
    "aiserver.usecases.watch_job": [["tests/unit/test_stream_limits.py"], *STREAMING],
    "aiserver.providers.adapters.openai.stream": [["tests/unit/test_openai_stream_limits.py"], *STREAMING],
    "aiserver.providers.stream": [["tests/unit/test_stage_limits.py"], *STREAMING],
    "aiserver.wire.sse": [["tests/unit/test_stage_limits.py"], *STREAMING],
    "aiserver.providers.adapters.base.chat": [["tests/unit/test_chat_limits.py"], *TRANSLATION],
    "aiserver.providers.adapters.base.validate": [["tests/unit/test_chat_limits.py"], *TRANSLATION],
    "aiserver.providers.adapters.base.turns": [["tests/unit/test_chat_limits.py"], *TRANSLATION],
    "aiserver.providers.adapters.base.completion": [["tests/unit/test_translation_limits.py"], *TRANSLATION],
    "aiserver.providers.adapters.base.translation": [["tests/unit/test_translation_limits.py"], *TRANSLATION],
}
OPPOSITES: dict[type[ast.AST], type[Any]] = {
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


class Mutator(ast.NodeTransformer):
    """Mutates the node with index `number`; `candidates` lists the source of every node that can be mutated."""

    def __init__(self, number: int = -1) -> None:
        self.candidates: list[str] = []
        self._number = number

    def _is_target(self, node: ast.AST) -> bool:
        self.candidates.append(ast.unparse(node))
        return len(self.candidates) - 1 == self._number

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        if type(node.ops[0]) in OPPOSITES and self._is_target(node):
            node.ops[0] = OPPOSITES[type(node.ops[0])]()
        return node

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        self.generic_visit(node)
        if self._is_target(node):
            node.op = OPPOSITES[type(node.op)]()
        return node

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, int) and self._is_target(node):
            constant = node.value.value
            node.value = ast.Constant(not constant if isinstance(constant, bool) else constant + 1)
        return node

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        return node.operand if isinstance(node.op, ast.Not) and self._is_target(node) else node


class _MutatingLoader(importlib.machinery.SourceFileLoader):
    """Loads a module with the node `number` mutated."""

    number = -1

    def get_code(self, fullname: str) -> CodeType:
        tree = Mutator(self.number).visit(ast.parse(self.get_data(self.path)))
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
        spec.loader = loader = _MutatingLoader(fullname, spec.origin)
        loader.number = int(number)
        return spec


if TARGET in os.environ:  # as a pytest plugin, before any import of the package
    sys.meta_path.insert(0, _Finder())


def main() -> int:
    for name in PRELOADED:
        importlib.import_module(name)
    suites = [*FAILOVER, *STREAMING, *TRANSLATION, *[suites[0] for suites in RULES.values()]]
    if failing := [suite for suite in suites if run("none", suite, "tests.mutate_rules") != SURVIVED]:
        print(f"Tests fail without a mutation: {failing}")
        return 1
    survivors = 0
    for module, suites in RULES.items():
        mutator = Mutator()
        mutator.visit(ast.parse(Path("layers/aiserver", *module.split(".")).with_suffix(".py").read_text()))
        for number, source in enumerate(mutator.candidates):
            target = f"{module}:{number}"
            results = (run(target, suite, "tests.mutate_rules") for suite in suites)
            verdict = next((result for result in results if result != SURVIVED), SURVIVED)
            print(f"{verdict:18}{module.split('.')[-1]} with the opposite of {source}", flush=True)
            survivors += verdict not in DETECTED
    print(f"{survivors} mutants survived" if survivors else "Every mutant was killed.")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
