"""Generates the state diagrams and transition tables in docs/jobs.md: `python -m docs.generate`.

`--check` writes nothing and exits 1 when the page is stale; used by `make check`.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

from aiserver.jobs.job import attribute_name
from aiserver.jobs.states import TERMINAL_STATES, CallbackState, JobState
from aiserver.jobs.transitions import TRANSITIONS, Condition, Param, Transition

PAGE = Path(__file__).parent / "jobs.md"
ACCEPT = "T1"  # creates a job, so it is not in the table of transitions


def main(arguments: list[str]) -> int:
    jobs = [transition for transition in TRANSITIONS if transition.machine == "state"]
    callbacks = [transition for transition in TRANSITIONS if transition.machine == "callback"]
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


def write(page: Path, script: str, parts: list[str], arguments: list[str]) -> int:
    """Write the parts between the markers of `script`, or with --check compare them. Returns the exit status."""
    begin, end = f"<!-- begin: {script} -->", f"<!-- end: {script} -->"
    old = page.read_text(encoding="utf-8")
    before, _, remainder = old.partition(begin)
    _, _, after = remainder.partition(end)
    new = before + "\n\n".join([begin, *parts, end]) + after
    if new == old:
        return 0
    if "--check" in arguments:
        sys.stderr.write(f"{page.name} is stale: run `make docs`\n")
        return 1
    page.write_text(new, encoding="utf-8")
    return 0


def diagram(transitions: list[Transition], *, starts: Iterable[tuple[str, str]], ends: Iterable[str]) -> str:
    """One arrow for each pair of states, labelled with its transitions; no arrow for an unchanged state."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for transition in transitions:
        if transition.source != transition.target:
            arrows.setdefault((transition.source, transition.target), []).append(transition.name)
    lines = [f"    [*] --> {state}: {label}" for state, label in starts]
    lines += [f"    {source} --> {target}: {', '.join(names)}" for (source, target), names in arrows.items()]
    lines += [f"    {state} --> [*]" for state in ends]
    return "\n".join(["```mermaid", "stateDiagram-v2", "    direction LR", *lines, "```"])


def table(transitions: list[Transition]) -> str:
    head = "| id | description | writer | from → to | condition | writes |\n|---|---|---|---|---|---|"
    lines = [
        f"| {transition.name} | {transition.description} | {transition.writer} "
        f"| {transition.source} → {transition.target} | {_conditions(transition)} | {_writes(transition)} |"
        for transition in transitions
    ]
    return "\n".join([head, *lines])


def _conditions(transition: Transition) -> str:
    return ", ".join(_format_condition(condition) for condition in transition.guards) or "its state"


def _format_condition(condition: Condition) -> str:
    if condition.op == "absent":
        return f"no `{attribute_name(condition.attribute)}`"
    return f"`{attribute_name(condition.attribute)} {condition.op} {_operand(condition.value)}`"


def _writes(transition: Transition) -> str:
    sets = [
        f"`{attribute_name(name)}`" if value == Param(name) else f"`{attribute_name(name)} = {_operand(value)}`"
        for name, value in transition.sets.items()
    ]
    adds = [f"`{attribute_name(name)} + {amount}`" for name, amount in transition.adds.items()]
    names = ", ".join(f"`{attribute_name(name)}`" for name in transition.removes)
    removes = [f"removes {names}"] if names else []
    return "; ".join([", ".join(sets + adds), *removes])


def _operand(value: Param | str | int) -> str:
    return f":{attribute_name(value.name)}" if isinstance(value, Param) else str(value) or '""'


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
