"""Fills the part of docs/jobs.md that follows from the table of transitions: `python -m docs.generate`.

`--check` writes nothing and exits 1 when the page is stale; `make check` runs it so.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

from aiserver.jobs.job import attribute_name
from aiserver.jobs.states import TERMINAL_STATES, CallbackState, JobState
from aiserver.jobs.transitions import TRANSITIONS, Condition, Param, Transition

PAGE = Path(__file__).parent / "jobs.md"
ACCEPT = "T1"  # writes a new job: it changes none, so it is no row of the table


def main(arguments: list[str]) -> int:
    jobs = [t for t in TRANSITIONS if t.machine == "state"]
    callbacks = [t for t in TRANSITIONS if t.machine == "callback"]
    parts = [
        "### Jobs",
        diagram(jobs, starts=[(JobState.QUEUED, ACCEPT)], ends=sorted(TERMINAL_STATES)),
        table(jobs),
        "### Callbacks",
        diagram(
            callbacks,
            starts=[(CallbackState.PENDING, "the job ended")],
            ends=[CallbackState.DELIVERED, CallbackState.DEAD],
        ),
        table(callbacks),
    ]
    return write(PAGE, "docs/generate.py", parts, arguments)


def write(page: Path, by: str, parts: list[str], arguments: list[str]) -> int:
    """Put the parts between the markers of the script `by`, or only check that they stand there; the exit status."""
    begin, end = f"<!-- begin: {by} -->", f"<!-- end: {by} -->"
    old = page.read_text(encoding="utf-8")
    before, _, rest = old.partition(begin)
    _, _, after = rest.partition(end)
    new = before + "\n\n".join([begin, *parts, end]) + after
    if new == old:
        return 0
    if "--check" in arguments:
        sys.stderr.write(f"{page.name} is stale: run `make docs`\n")
        return 1
    page.write_text(new, encoding="utf-8")
    return 0


def diagram(rows: list[Transition], *, starts: Iterable[tuple[str, str]], ends: Iterable[str]) -> str:
    """One arrow for each pair of states, named by its transitions; those that stay where they are have none."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row.source != row.target:
            arrows.setdefault((row.source, row.target), []).append(row.name)
    lines = [f"    [*] --> {state}: {label}" for state, label in starts]
    lines += [f"    {source} --> {target}: {', '.join(names)}" for (source, target), names in arrows.items()]
    lines += [f"    {state} --> [*]" for state in ends]
    return "\n".join(["```mermaid", "stateDiagram-v2", "    direction LR", *lines, "```"])


def table(rows: list[Transition]) -> str:
    head = "| | what | writer | from → to | only if | writes |\n|---|---|---|---|---|---|"
    lines = [
        f"| {row.name} | {row.description} | {row.writer} | {row.source} → {row.target} "
        f"| {_only_if(row)} | {_writes(row)} |"
        for row in rows
    ]
    return "\n".join([head, *lines])


def _only_if(row: Transition) -> str:
    return ", ".join(_condition(when) for when in row.guards) or "its state"


def _condition(when: Condition) -> str:
    if when.op == "absent":
        return f"no `{attribute_name(when.attribute)}`"
    return f"`{attribute_name(when.attribute)} {when.op} {_value(when.value)}`"


def _writes(row: Transition) -> str:
    sets = [
        f"`{attribute_name(name)}`" if value == Param(name) else f"`{attribute_name(name)} = {_value(value)}`"
        for name, value in row.sets.items()
    ]
    adds = [f"`{attribute_name(name)} + {by}`" for name, by in row.adds.items()]
    removes = ["removes " + ", ".join(f"`{attribute_name(name)}`" for name in row.removes)] if row.removes else []
    return "; ".join([", ".join(sets + adds), *removes])


def _value(value: Param | str | int) -> str:
    return f":{attribute_name(value.name)}" if isinstance(value, Param) else str(value)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
