"""Takes each condition out of the table of transitions in turn: some test must fail, or nothing holds that condition.

`make mutate` runs it and prints a line for each; it exits 1 when a condition is not held. Not part of `make test`.
"""

import os
import subprocess
import sys

from aiserver.jobs.transitions import TRANSITIONS, Transition

# The quickest to tell comes first: what the table says, then what a job's life needs, then what happens in bad times.
SUITES = [
    ["tests/contract", "-k", "fake or spelled"],
    ["tests/unit/test_jobs.py", "tests/unit/test_reply.py"],
    ["tests/crash/test_races.py", "tests/crash/test_crashes.py", "-k", "not cloud and not all_there"],
]
TARGET = "MUTATION"
HANGS_S = 120  # four times what the slowest suite takes as it is
PASSED, FAILED, HANGS = "NOT HELD", "held", "held: it hangs"
HELD = (FAILED, HANGS)


def pytest_configure() -> None:
    """As a pytest plugin: leave out the condition that the environment names."""
    name, _, index = os.environ[TARGET].partition(":")
    whole = Transition.conditions.fget
    assert whole is not None

    def without(row: Transition) -> object:
        return tuple(when for i, when in enumerate(whole(row)) if (row.name, str(i)) != (name, index))

    Transition.conditions = property(without)  # pyright: ignore[reportAttributeAccessIssue]


def main() -> int:
    if broken := [suite for suite in SUITES if run("none", suite) != PASSED]:
        print(f"these do not pass as they are: {broken}")
        return 1
    survived: list[str] = []
    for row in TRANSITIONS:
        for index, when in enumerate(row.conditions):
            ended = next((end for suite in SUITES if (end := run(f"{row.name}:{index}", suite)) != PASSED), PASSED)
            told = f"{row.name} without {when.attribute} {when.op}"
            print(f"{ended:18}{told}", flush=True)
            if ended not in HELD:
                survived.append(told)
    print(f"{len(survived)} conditions that no test holds" if survived else "every condition is held by a test")
    return 1 if survived else 0


def run(target: str, suite: list[str], plugin: str = "tests.mutate") -> str:
    """How a suite ends before what the plugin makes of the target."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", plugin, "-p", "no:cacheprovider", *suite]
    try:
        ran = subprocess.run(
            command, env=os.environ | {TARGET: target}, capture_output=True, check=False, timeout=HANGS_S
        )
    except subprocess.TimeoutExpired:  # the job goes round for ever: nobody could miss that
        return HANGS
    return {0: PASSED, 1: FAILED}.get(ran.returncode, f"pytest says {ran.returncode}")


if __name__ == "__main__":
    sys.exit(main())
