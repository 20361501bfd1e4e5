"""Takes each condition out of the table of transitions in turn: some test must fail, or nothing holds that condition.

`make mutate` runs it and prints a line for each; it exits 1 when a condition is not held. Not part of `make test`.
"""

import os
import subprocess
import sys

from aiserver.jobs.transitions import TABLE, Transition

# The quickest to tell comes first: what the table says, then what a job's life needs, then what happens in bad times.
SUITES = [
    ["tests/contract", "-k", "fake or spelled"],
    ["tests/unit/test_jobs.py", "tests/unit/test_reply.py"],
    ["tests/crash/test_races.py", "tests/crash/test_crashes.py", "-k", "not cloud and not all_there"],
]
TARGET = "MUTATION"
HANGS_S = 60


def pytest_configure() -> None:
    """As a pytest plugin: leave out the condition that the environment names."""
    name, _, index = os.environ[TARGET].partition(":")
    whole = Transition.conditions.fget
    assert whole is not None

    def without(row: Transition) -> object:
        return tuple(when for i, when in enumerate(whole(row)) if (row.name, str(i)) != (name, index))

    Transition.conditions = property(without)  # pyright: ignore[reportAttributeAccessIssue]


def main() -> int:
    survived: list[str] = []
    for row in TABLE:
        for index, when in enumerate(row.conditions):
            held = any(_fails(f"{row.name}:{index}", [*suite, "-x"]) for suite in SUITES)
            told = f"{row.name} without {when.attribute} {when.op}"
            print(f"{'held' if held else 'NOT HELD':9}{told}", flush=True)
            if not held:
                survived.append(told)
    print(f"{len(survived)} conditions that no test holds" if survived else "every condition is held by a test")
    return 1 if survived else 0


def _fails(target: str, suite: list[str]) -> bool:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.mutate", "-p", "no:cacheprovider", *suite]
    try:
        ran = subprocess.run(
            command, env=os.environ | {TARGET: target}, capture_output=True, check=False, timeout=HANGS_S
        )
    except subprocess.TimeoutExpired:  # the job goes round for ever: nobody could miss that
        return True
    return ran.returncode != 0


if __name__ == "__main__":
    sys.exit(main())
