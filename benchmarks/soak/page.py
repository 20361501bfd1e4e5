"""docs/soak.md from the raw result of a soak."""

from collections.abc import Mapping
from typing import Any

# Names on the page for keys of the raw results: counts, and faults without their fault point.
LABELS = {
    "of these on the gpu queue": "jobs on the gpu queue",
    "requests to queue them": "requests to queue jobs",
    "calls that died with them": "calls interrupted by a kill",
    "of these before the upstream saw them": "interrupted calls before the upstream received them",
    "attempts that died with them before a call": "attempts interrupted before a call",
    "jobs reminded of by the sweeper": "messages sent again by the sweeper",
    "callback messages of killed deliverers, still hidden": "callback messages of killed processes, still invisible",
    "process killed before it was done": "process killed before the operation",
    "process killed after it was done, before it heard so": "process killed after the operation, before the response",
    "done, and the answer lost": "operation applied, response lost",
    "answered 500 once": "status 500 once",
    "answered 500 until the sender gave up": "status 500 for all attempts of the sender",
    "lost, though the sender was told it was sent": "message lost after confirmation",
    "sent twice": "message duplicated",
    "given to a second worker as well": "also run in a second worker",
}
HEAD = """# Soak

`{command}`, {date}, {machine}, seed {seed}, {took_s} s. Raw result: `benchmarks/results/soak.json`.
Parameters: {parameters}.

Several callers queue {jobs} jobs over HTTP, some requests twice at the same time. The jobs run in the embedded cloud.
All functions call AWS through a proxy. The proxy and the upstream identify the calling process (by the kernel's table
of connections) and kill it at selected steps. The seed and the job's number determine the faults of each job.
Each function has up to sixteen concurrent invocations. The sweeper also runs every few seconds, besides its schedule.
`SEED=2 make soak` is another run; `COUNT=200 make soak` is a smaller one, which still waits for leases to expire.
Neither is recorded.

## Invariants

The proxy records each claim, mark, outcome and end that AWS has confirmed, with the process that wrote it.
The upstream records each call. The receiver records each callback, and the job's state in the table at that time.
At the end the table must match these records, in total and for each job. Otherwise the run fails and lists the jobs.

| must be equal | | |
|---|---|---|
{equations}

A killed process also ends its other jobs' calls. A call is open from its mark (T3) to its outcome (T4 to T6).
When the process of an open call dies, it is unknown whether the call was billed. Each such call counts in
`maybeBilled`, also when the process died after the mark and before the upstream received the call. Such a call is
recorded but is not in the upstream's log; the invariant of recorded calls adds these calls.
"""
TAIL = """## Injected faults

| fault | count |
|---|---|
{faults}

## Totals

| | |
|---|---|
{counts}

## Limits of this test

All clocks are one clock. Bodies are small, so S3 is not used. No job is cancelled, and no deadline passes.
The queue function receives AWS faults but is not killed; the sweeper's writes always reach AWS.
"""


def render(results: Mapping[str, Any]) -> str:
    """The page. A violated invariant shows the ids of its jobs."""
    parameters = ", ".join(f"{name} {value}" for name, value in results["parameters"].items())
    rows = [f"| {row['words']} | {row['left']} | {_expectation(row)} |" for row in results["equations"]]
    fields = {**results, "parameters": parameters, "jobs": results["counts"]["jobs"], "equations": "\n".join(rows)}
    return HEAD.format(**fields) + "\n" + TAIL.format(faults=_rows(results["faults"]), counts=_rows(results["counts"]))


def _expectation(invariant: Mapping[str, Any]) -> str:
    violations = f", VIOLATED by jobs {invariant['broken'][:5]}" if invariant["broken"] else ""
    return f"{invariant['right']}{violations}"


def _rows(counts: Mapping[str, int]) -> str:
    return "\n".join(f"| {_label(key)} | {count} |" for key, count in counts.items())


def _label(key: str) -> str:
    point, separator, fault = key.partition(": ")
    return LABELS.get(key) or point + separator + LABELS.get(fault, fault)
