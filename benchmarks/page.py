"""Generates docs/benchmarks.md from the raw results: `python -m benchmarks.page`; `--check` exits 1 when it is stale.

Each benchmark saves its results with `save`; its section of the page is below.
"""

import json
import os
import platform
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from local.template import REPOSITORY

RESULTS = REPOSITORY / "benchmarks" / "results"
PAGE = REPOSITORY / "docs" / "benchmarks.md"

# Names on the page for keys of the raw results.
LABELS = {
    "the local door alone, trivial handler": "local gateway only, trivial handler",
    "boot of the embedded cloud, once": "start of the embedded cloud",
    "the upstream asked directly": "direct call to the upstream",
    "queued job, from accept to callback received": "queued job, from acceptance to received callback",
    "the local door": "local gateway",
    "answers": "responds",
}

Results = Mapping[str, Any]


def save(name: str, results: Results) -> None:
    """Write the raw results of one benchmark, with date and machine, and the page."""
    context = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps({**context, **results}, indent=2) + "\n", encoding="utf-8")
    text = render()
    PAGE.write_text(text, encoding="utf-8")
    print(text)


def render() -> str:
    """The page, from the results of all benchmarks."""
    sections = ["# Benchmarks\n\n`make bench`. Raw numbers: `benchmarks/results/`."]
    for name, render_section in SECTIONS.items():
        sections.append(render_section(json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))))
    return "\n\n".join(sections) + "\n"


def _local(results: Results) -> str:
    rows = [
        f"| {_label(name)} | {f['times']} | {f['p50']} | {f['p95']} | {f['max']} |"
        for name, f in results["figures"].items()
    ]
    return "\n".join(
        [
            "## Sequential requests",
            "",
            f"{_context(results)}. The embedded cloud with an upstream that responds immediately.",
            "Caller, upstream and gateway share the cores; requests are sequential.",
            "Each row includes the caller's HTTP client, which takes most of the time of a direct call.",
            "On AWS, network latency and cold starts are additional.",
            "",
            "| request | count | p50 ms | p95 ms | max ms |",
            "|---|---|---|---|---|",
            *rows,
        ]
    )


def _batch(results: Results) -> str:
    jobs, response_s = results["jobs"], results["answer_s"]
    runs = len(next(iter(results["figures"].values()))["side by side"])
    rows = [
        f"| {queue} | {f['one_by_one_ms'] / 1000:.2f} | {f['side_by_side_ms'] / 1000:.2f} | {f['ratio']} |"
        for queue, f in results["figures"].items()
    ]
    return "\n".join(
        [
            "## Batch of jobs",
            "",
            f"{_context(results)}. {jobs} jobs whose provider takes {response_s:g} s each.",
            "Duration of the worker invocations, which Lambda bills: the sum of",
            f"{jobs} invocations with one job, and one invocation with {jobs} concurrent jobs (median of {runs}).",
            "The worker runs in Lambda's runtime client, warm.",
            "",
            "| queue | one by one, s | concurrent, s | ratio |",
            "|---|---|---|---|",
            *rows,
        ]
    )


def _memory(results: Results) -> str:
    rows = [
        f"| {r['form']} | {r['times']} | {r['megabytes']} | {r['before']} | {r['peak']} | {r['seconds']} |"
        for r in results["rows"]
    ]
    return "\n".join(
        [
            "## Worker memory",
            "",
            f"{_context(results)}.",
            "One process of Lambda's runtime client runs a batch; the provider responds to all jobs at the same time.",
            "The function has 1,024 MB. The duration is for the complete batch; upstream and cloud share the cores.",
            "",
            "| response content | responses | size, MB | before, MB | peak, MB | s |",
            "|---|---|---|---|---|---|",
            *rows,
        ]
    )


def _binding(results: Results) -> str:
    rows = [
        f"| {r['body']} | {r['bytes']:,} | {r['median']} | {r['worst']} | {r['loads']} | {r['ratio']} |"
        for r in results["rows"]
    ]
    return "\n".join(
        [
            "## Request parsing and routing",
            "",
            f"{_context(results)}. From the caller's text to the provider's request body.",
            "The request is validated, its fields are renamed to OpenAI's names, and gateway fields are removed.",
            "Then a provider is selected and its model name inserted.",
            "`json.loads` of the same text is the baseline; the ratio is comparable between machines.",
            "The maximum of some thousand rounds includes waits for other processes on the same cores.",
            "",
            "| body | bytes | median, us | max, us | `json.loads`, us | ratio |",
            "|---|---|---|---|---|---|",
            *rows,
        ]
    )


def _calls(results: Results) -> str:
    rows = [f"| {r['calls']:,} | {r['kb'] / 1024:.1f} |" for r in results["readings"]]
    growth = f"{results['grew_kb'] / 1024:+.1f} MB from the first reading to the last"
    return "\n".join(
        [
            "## Memory over many requests",
            "",
            f"{_context(results)}. One process of the chat function in Lambda's runtime client, sequential requests.",
            "Three in ten fail: at the provider, on the connection to it, or with an invalid request.",
            f"Memory (RSS): {growth}. Growth above {results['limit_kb'] // 1024} MB fails the run.",
            "",
            "| requests | MB |",
            "|---|---|",
            *rows,
        ]
    )


def _callbacks(results: Results) -> str:
    share = f"one in {results['others'] + 1}"
    rows = [
        f"| {_label(kind)} | {' / '.join(str(r['p50']) for r in runs)} | {' / '.join(str(r['p95']) for r in runs)} "
        f"| {' / '.join(str(r['max']) for r in runs)} |"
        for kind, runs in results["figures"].items()
    ]
    return "\n".join(
        [
            "## Callbacks with a hanging receiver",
            "",
            f"{_context(results)}. {results['rate']} jobs per second for {results['seconds']} s,",
            f"{share} for one receiver. In one run it responds immediately; in the next it accepts each POST and never",
            "responds. Each run has a separate cloud.",
            "The table shows the latency of the other receivers' callbacks, from request to callback.",
            f"With the hanging receiver, p95 is {results['ratio']} times the p95 without it (medians).",
            "",
            "| the one receiver | p50 ms | p95 ms | max ms |",
            "|---|---|---|---|",
            *rows,
        ]
    )


def _streams(results: Results) -> str:
    direct = "directly"
    rows: list[str] = []
    for name, figures in results["figures"].items():
        f, d = figures["through"], figures[direct]
        rows.append(
            f"| {_label(name)} | {f['first_p50'] - d['first_p50']:+.2f} | {f['first_p95'] - d['first_p95']:+.2f} "
            f"| {f['first_p50'] / d['first_p50']:.0f} | {f['chunk'] - d['chunk']:+.4f} | {f['chunk'] / d['chunk']:.0f} "
            f"| {f['late_p50'] - d['late_p50']:+.2f} | {f['late_p95'] - d['late_p95']:+.2f} "
            f"| {f['spread'] / f['sent_spread']:.3f} |"
        )
    d = next(iter(results["figures"].values()))[direct]
    memory, limits = results["memory"], results["limits"]
    big, readings = memory["big"], memory["readings"]
    cores = "\nEach gateway and its processes run on one core, upstream and caller on the other."
    skipped = "".join(f"\n{name} was not measured: {reason}." for name, reason in results["left_out"].items())
    peers = "" if len(results["figures"]) > 1 else "\nWith other gateways: `PEERS=1 python -m benchmarks.streams`."
    return "\n".join(
        [
            "## Streams",
            "",
            f"`{results['command']}`, {_context(results)}.",
            "Overhead compared with direct calls to the same upstream in the same run.",
            f"Sequential streams over one keep-alive connection.{cores * results['is_pinned']}",
            f"Direct calls: {d['first_p50']:.3f} ms to the first event with content, {d['chunk']:.4f} ms for each of",
            f"1,000 events sent without a pause, {d['late_p50']:.2f} ms delay for each of 64 events sent 20 ms apart.",
            "Spread is the time from the first to the last of these as received, divided by the time as sent.",
            f"The numbers of the local gateway include its emulation of API Gateway and Lambda.{skipped}{peers}",
            "",
            "| through | first event p50 ms | p95 ms | times direct | per event, no pause, ms | times direct "
            "| paced event p50 ms | p95 ms | spread |",
            "|---|---|---|---|---|---|---|---|---|",
            *rows,
            "",
            f"An overhead above {limits['first_ms']:g} ms for the first event or {limits['chunk_ms']:g} ms per event "
            "fails the run.",
            f"Memory of the chat function's process (RSS): {big['before'] / 1024:.1f} MB before a stream of "
            f"{big['bytes'] / 1024 / 1024:.0f} MB, at most {big['peak'] / 1024:.1f} MB during it.",
            f"Growth from stream {readings[0]['streams']} to stream {readings[-1]['streams']:,}: "
            f"{memory['grew_kb'] / 1024:+.1f} MB; more than {limits['growth_kb'] // 1024} MB fails the run.",
        ]
    )


def _label(key: str) -> str:
    return LABELS.get(key, key)


def _context(results: Results) -> str:
    return f"{results['date']}, {results['machine']}"


def _audio(results: Results) -> str:
    memory, figures, limits = results["memory"], results["figures"], results["limits"]
    form_rows = [
        f"| {int(size) / 1e6:.1f} MB | {' | '.join(f'{ms:.1f}' for ms in row.values())} "
        f"| {sum(row.values()) / (int(size) / 1e6):.1f} |"
        for size, row in results["forms"].items()
    ]
    rows = [f"| {kind} | {f['direct']} | {f['through']} | {f['added']} |" for kind, f in results["first_bytes"].items()]
    return "\n".join(
        [
            "## Audio",
            "",
            f"{_context(results)}. `python -m benchmarks.audio`.",
            "CPU time of each step that a form takes in the functions, in ms; the lowest of 15 runs:",
            "",
            "| file | event JSON | base64 | parse and encode | parse for the provider | encode | sum per MB |",
            "|---|---|---|---|---|---|---|",
            *form_rows,
            "",
            f"Limit: {limits['form_ms_per_mb']} ms per MB.",
            "",
            "Time to the first byte in ms, median of 55 sequential requests to an upstream that responds at once:",
            "",
            "| response | direct | through the gateway | added |",
            "|---|---|---|---|",
            *rows,
            "",
            f"Speech adds {figures['first_byte_ratio']} times what a streamed chat adds;"
            f" limit: {limits['first_byte_ratio']}.",
            f"The `media` function takes {memory['before_mb']} MB before and {memory['peak_mb']} MB at the peak of a"
            f" form of 4.5 MB; limit: {limits['media_mb']} MB.",
        ]
    )


SECTIONS: Mapping[str, Callable[[Results], str]] = {
    "local": _local,
    "streams": _streams,
    "binding": _binding,
    "callbacks": _callbacks,
    "batch": _batch,
    "memory": _memory,
    "calls": _calls,
    "audio": _audio,
}


def main(arguments: list[str]) -> int:
    text = render()
    if "--check" in arguments and PAGE.read_text(encoding="utf-8") != text:
        sys.stderr.write(f"{PAGE.name} is stale: run `make docs`\n")
        return 1
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
