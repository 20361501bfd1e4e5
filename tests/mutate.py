"""Mutation test of the state machine: removes each transition condition in turn; a test must fail.

`make mutate` runs it and prints one line per condition. It exits 1 when a mutant survives. Not part of `make test`.
"""

import multiprocessing
import os
import sys

import pytest

from aiserver.jobs.transitions import TRANSITIONS, Transition

# Fastest suites first: the table of transitions, then the job life cycle, then crashes and races.
SUITES = [
    ["tests/contract", "-k", "fake or expected"],
    ["tests/unit/test_jobs.py", "tests/unit/test_deliver_callback.py"],
    ["tests/crash/test_races.py", "tests/crash/test_crashes.py", "-k", "not cloud and not cover_every_call"],
]
TARGET = "MUTATION"
TIMEOUT_S = 120  # four times the duration of the slowest suite
SURVIVED, KILLED, TIMED_OUT = "SURVIVED", "killed", "killed: timeout"
DETECTED = (KILLED, TIMED_OUT)


def pytest_configure() -> None:
    """As a pytest plugin: remove the condition that the environment variable MUTATION names."""
    name, _, index = os.environ[TARGET].partition(":")
    all_conditions = Transition.conditions.fget
    assert all_conditions is not None

    def remaining_conditions(row: Transition) -> object:
        return tuple(when for i, when in enumerate(all_conditions(row)) if (row.name, str(i)) != (name, index))

    Transition.conditions = property(remaining_conditions)  # pyright: ignore[reportAttributeAccessIssue]


def main() -> int:
    if failing := [suite for suite in SUITES if run("none", suite) != SURVIVED]:
        print(f"Tests fail without a mutation: {failing}")
        return 1
    survivors: list[str] = []
    for row in TRANSITIONS:
        for index, when in enumerate(row.conditions):
            results = (run(f"{row.name}:{index}", suite) for suite in SUITES)
            verdict = next((result for result in results if result != SURVIVED), SURVIVED)
            mutation = f"{row.name} without {when.attribute} {when.op}"
            print(f"{verdict:18}{mutation}", flush=True)
            if verdict not in DETECTED:
                survivors.append(mutation)
    print(f"{len(survivors)} mutants survived" if survivors else "Every mutant was killed.")
    return 1 if survivors else 0


def run(target: str, suite: list[str], plugin: str = "tests.mutate") -> str:
    """Run a suite with the mutation that the plugin derives from `target`, and return the verdict.

    A child process runs it, which inherits the imported libraries: starting pytest anew would take most of the time.
    """
    child = multiprocessing.get_context("fork").Process(target=_run_suite, args=(target, suite, plugin))
    child.start()
    child.join(TIMEOUT_S)
    if child.is_alive():  # the mutant loops forever, which counts as detected
        child.kill()
        child.join()
        return TIMED_OUT
    return {0: SURVIVED, 1: KILLED}.get(child.exitcode or 0, f"pytest exit status {child.exitcode}")


def _run_suite(target: str, suite: list[str], plugin: str) -> None:
    """In the child: exits with pytest's status, without output."""
    os.environ[TARGET] = target
    output = os.open(os.devnull, os.O_WRONLY)
    os.dup2(output, 1)
    os.dup2(output, 2)
    options = ["-q", "-x", "-p", plugin, "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    status = pytest.main([*options, *suite])
    os._exit(int(status))  # without the exit handlers of the libraries


if __name__ == "__main__":
    sys.exit(main())
