"""docs/soak.md from the raw result of a soak."""

from collections.abc import Mapping
from typing import Any

HEAD = """# Soak

`{command}`, {date}, {machine}, seed {seed}, {took_s} s. Raw result: `benchmarks/results/soak.json`.
Parameters: {parameters}.

{jobs} jobs are queued over HTTP by several callers, some requests twice at once, and run through the embedded cloud. A
proxy stands between all functions and AWS; it and the upstream know which process is calling (by the kernel's table of
connections) and kill it at chosen instants. What happens to which job follows from the seed and the job's number. Each
function has up to sixteen invocations at once, and the sweeper runs every few seconds beside its schedule.
`SEED=2 make soak` is another run, `COUNT=200 make soak` a smaller one, which still waits for leases to run out; neither
is recorded.

## The books

The proxy notes each claim, mark, outcome and end that AWS has confirmed, and by which process; the upstream each call;
the receiver each callback, and the job's state in the table at that moment. In the end the table must agree with them,
in sum and in each job, or the run fails and names the jobs.

| must be equal | | |
|---|---|---|
{equations}

A killed process takes along whatever its other jobs were at. A call is open from its mark (T3) to its outcome (T4 to
T6): of one that is open when its process dies, nobody can know whether it was billed, so each counts in `maybeBilled`,
also where the process died after the mark and before the upstream heard of it. Such a call is recorded and not in the
upstream's log, which is why it has its own place in that equation.
"""
TAIL = """## What went wrong, on purpose

| fault | times |
|---|---|
{faults}

## What there was

| | |
|---|---|
{counts}

## What this does not show

All clocks are one clock. Bodies are small, so S3 is not asked. Nobody cancels, and no deadline
passes. The queue function meets faults of AWS but is not killed; what the sweeper writes always reaches AWS.
"""


def page(told: Mapping[str, Any]) -> str:
    """The page. An equation that broke is printed with the jobs that broke it."""
    parameters = ", ".join(f"{name} {value}" for name, value in told["parameters"].items())
    equations = [
        f"| {equation['words']} | {equation['left']} | {_verdict(equation)} |" for equation in told["equations"]
    ]
    about = {**told, "parameters": parameters, "jobs": told["counts"]["jobs"], "equations": "\n".join(equations)}
    return HEAD.format(**about) + "\n" + TAIL.format(faults=_rows(told["faults"]), counts=_rows(told["counts"]))


def _verdict(equation: Mapping[str, Any]) -> str:
    return f"{equation['right']}" + (f", BROKEN in {equation['broken'][:5]}" if equation["broken"] else "")


def _rows(counted: Mapping[str, int]) -> str:
    return "\n".join(f"| {name} | {count} |" for name, count in counted.items())
