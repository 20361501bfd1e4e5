"""How many cases the randomized tests try: some in `make test`, all in `make test-full`; and from which seed."""

import contextlib
import os
from collections.abc import Iterable, Iterator
from random import Random
from typing import TypeVar

from hypothesis import core, settings

FULL, QUICK = "full", "quick"
SHARE = 5  # the quick profile tries one case in so many
LEAST = 10
Case = TypeVar("Case")
DEFAULT = 100  # Hypothesis's own
IS_FULL = os.environ.get("HYPOTHESIS_PROFILE", QUICK) == FULL

# No deadline per example: it would measure how busy the machine is. Every test has a time limit (pyproject.toml).
settings.register_profile(FULL, max_examples=DEFAULT, deadline=None, print_blob=True)
settings.register_profile(QUICK, max_examples=DEFAULT // SHARE, deadline=None, print_blob=True)


def examples(full: int, *, at_least: int = LEAST) -> int:
    """`max_examples` of a property that has `full` of them in `make test-full`.

    `at_least` is for what guards security or durability, with the reason beside it.
    """
    return full if IS_FULL else min(full, max(full // SHARE, at_least))


def sample(cases: Iterable[Case], name: str, *, share: int = SHARE) -> list[Case]:
    """One in `share` of `cases`, at least one, others at each seed; all of them in `make test-full`."""
    every = list(cases)
    if IS_FULL:
        return every
    return Random(f"{core.global_force_seed} {name}").sample(every, -(-len(every) // share))


@contextlib.contextmanager
def naming(*case: object) -> Iterator[None]:
    """A failure within the block names the case."""
    try:
        yield
    except BaseException as failure:
        failure.add_note(f"in the case {case}")
        raise
