"""Number of cases and seed of the randomized tests: a share in `make test`, all in `make test-full`."""

import contextlib
import os
from collections.abc import Iterable, Iterator
from random import Random
from typing import TypeVar

from hypothesis import core, settings

FULL, QUICK = "full", "quick"
SHARE = 5  # the quick profile runs one case in five
MIN_EXAMPLES = 10
Case = TypeVar("Case")
DEFAULT = 100  # the default of Hypothesis
IS_FULL = os.environ.get("HYPOTHESIS_PROFILE", QUICK) == FULL

# No deadline per example: it would depend on the load of the machine. Every test has a time limit (pyproject.toml).
settings.register_profile(FULL, max_examples=DEFAULT, deadline=None, print_blob=True)
settings.register_profile(QUICK, max_examples=DEFAULT // SHARE, deadline=None, print_blob=True)


def examples(full: int, *, at_least: int = MIN_EXAMPLES) -> int:
    """Return `max_examples` of a property that runs `full` examples in `make test-full`.

    `at_least` is for properties that protect security or durability; the caller states the reason in a comment.
    """
    return full if IS_FULL else min(full, max(full // SHARE, at_least))


def sample(cases: Iterable[Case], name: str, *, share: int = SHARE) -> list[Case]:
    """Return one in `share` of `cases`, at least one, chosen by the seed; return all in `make test-full`."""
    all_cases = list(cases)
    if IS_FULL:
        return all_cases
    return Random(f"{core.global_force_seed} {name}").sample(all_cases, -(-len(all_cases) // share))


@contextlib.contextmanager
def note_case(*case: object) -> Iterator[None]:
    """Add the case to an exception raised in the block."""
    try:
        yield
    except BaseException as failure:
        failure.add_note(f"case: {case}")
        raise
