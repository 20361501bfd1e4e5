"""Writes docs/benchmarks.md from the raw results: `python -m benchmarks.page`; `--check` exits 1 where it is stale.

The one writer of that page: a benchmark keeps its results here, and has its section below.
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

Told = Mapping[str, Any]


def keep(name: str, told: Told) -> None:
    """Write one benchmark's raw results, with when and where, and the page anew."""
    where = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps({**where, **told}, indent=2) + "\n", encoding="utf-8")
    text = made()
    PAGE.write_text(text, encoding="utf-8")
    print(text)


def made() -> str:
    """The page, from the results of each benchmark."""
    sections = ["# Benchmarks\n\n`make bench`. Raw numbers: `benchmarks/results/`."]
    for name, section in SECTIONS.items():
        sections.append(section(json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))))
    return "\n\n".join(sections) + "\n"


def _local(told: Told) -> str:
    rows = [f"| {name} | {f['times']} | {f['p50']} | {f['p95']} | {f['max']} |" for name, f in told["figures"].items()]
    return "\n".join(
        [
            "## One call at a time",
            "",
            f"{_where(told)}. The embedded cloud with an upstream that answers at once. Caller, upstream and product",
            "share the cores, one call at a time, and each line includes the caller's own HTTP client, which is most",
            "of what asking the upstream directly takes. On AWS, the network and cold starts come on top.",
            "",
            "| what | times | p50 ms | p95 ms | max ms |",
            "|---|---|---|---|---|",
            *rows,
        ]
    )


def _batch(told: Told) -> str:
    jobs, answer_s = told["jobs"], told["answer_s"]
    rows = [
        f"| {queue} | {f['one_by_one_ms'] / 1000:.2f} | {f['side_by_side_ms'] / 1000:.2f} | {f['ratio']} |"
        for queue, f in told["figures"].items()
    ]
    return "\n".join(
        [
            "## A batch of jobs",
            "",
            f"{_where(told)}. {jobs} jobs whose provider takes {answer_s:g} s: seconds of worker invocations, which is",
            f"what Lambda bills, for {jobs} invocations of one job (their sum) and for one of {jobs} (median of "
            f"{len(next(iter(told['figures'].values()))['side by side'])}).",
            "The worker runs in Lambda's runtime client, warm.",
            "",
            "| queue | one by one, s | side by side, s | ratio |",
            "|---|---|---|---|",
            *rows,
        ]
    )


def _memory(told: Told) -> str:
    rows = [
        f"| {r['form']} | {r['times']} | {r['megabytes']} | {r['before']} | {r['peak']} | {r['seconds']} |"
        for r in told["rows"]
    ]
    return "\n".join(
        [
            "## Memory of a worker",
            "",
            f"{_where(told)}. One process of Lambda's runtime client takes a batch whose provider answers all jobs at",
            "once. The function has 1,024 MB. Time is for all of them, with upstream and cloud on the same cores.",
            "",
            "| answers full of | how many | of MB | before, MB | at most, MB | s |",
            "|---|---|---|---|---|---|",
            *rows,
        ]
    )


def _binding(told: Told) -> str:
    rows = [
        f"| {r['body']} | {r['bytes']:,} | {r['median']} | {r['worst']} | {r['loads']} | {r['ratio']} |"
        for r in told["rows"]
    ]
    return "\n".join(
        [
            "## Binding a chat",
            "",
            f"{_where(told)}. From the caller's text to the bytes for the provider: the request is read and checked,",
            "its members named as OpenAI names them, ours taken out, a provider chosen and its name for the model put",
            "in. `json.loads` of the same text is measured beside it; the ratio is what other machines have in common.",
            "The worst of some thousand rounds has waited for others on the same cores.",
            "",
            "| body | bytes | median, us | worst, us | `json.loads`, us | ratio |",
            "|---|---|---|---|---|---|",
            *rows,
        ]
    )


def _calls(told: Told) -> str:
    rows = [f"| {r['calls']:,} | {r['kb'] / 1024:.1f} |" for r in told["readings"]]
    grew = f"{told['grew_kb'] / 1024:+.1f} MB from the first reading to the last"
    return "\n".join(
        [
            "## Memory over many calls",
            "",
            f"{_where(told)}. One process of the chat function in Lambda's runtime client, asked one call at a time,",
            "three in ten of which go wrong: at the provider, on the way to it, or by the caller. What it holds (RSS):",
            f"{grew}; more than {told['limit_kb'] // 1024} MB would fail the run.",
            "",
            "| calls | MB |",
            "|---|---|",
            *rows,
        ]
    )


def _callbacks(told: Told) -> str:
    share = f"one in {told['others'] + 1}"
    rows = [
        f"| {kind} | {' / '.join(str(r['p50']) for r in runs)} | {' / '.join(str(r['p95']) for r in runs)} "
        f"| {' / '.join(str(r['max']) for r in runs)} |"
        for kind, runs in told["figures"].items()
    ]
    return "\n".join(
        [
            "## Callbacks beside a receiver that hangs",
            "",
            f"{_where(told)}. {told['rate']} jobs a second for {told['seconds']} s, {share} for a receiver that",
            "answers at once in one run, and in the next takes each POST and never answers; each run in a cloud of its",
            "own. How long the others' callbacks take, from the request to their arrival: with one that hangs, p95 is",
            f"{told['ratio']} times that without (medians).",
            "",
            "| the one receiver | p50 ms | p95 ms | max ms |",
            "|---|---|---|---|",
            *rows,
        ]
    )


def _streams(told: Told) -> str:
    direct = "directly"
    rows: list[str] = []
    for name, figures in told["figures"].items():
        f, d = figures["through"], figures[direct]
        rows.append(
            f"| {name} | {f['first_p50'] - d['first_p50']:+.2f} | {f['first_p95'] - d['first_p95']:+.2f} "
            f"| {f['first_p50'] / d['first_p50']:.0f} | {f['chunk'] - d['chunk']:+.4f} | {f['chunk'] / d['chunk']:.0f} "
            f"| {f['late_p50'] - d['late_p50']:+.2f} | {f['late_p95'] - d['late_p95']:+.2f} "
            f"| {f['spread'] / f['sent_spread']:.3f} |"
        )
    d = next(iter(told["figures"].values()))[direct]
    memory, limits = told["memory"], told["limits"]
    big, readings = memory["big"], memory["readings"]
    cores = "\nEach gateway, with all that belongs to it, has one core, upstream and caller the other."
    left_out = "".join(f" {name} is left out: {why} here." for name, why in told["left_out"].items())
    peers = "" if len(told["figures"]) > 1 else "\nOther gateways beside it: `PEERS=1 python -m benchmarks.streams`."
    return "\n".join(
        [
            "## Streams",
            "",
            f"`{told['command']}`, {_where(told)}. What is added to the same upstream asked directly, in the same",
            f"run, one stream at a time over a connection that is kept.{cores * told['is_pinned']}",
            f"Asked directly: {d['first_p50']:.3f} ms to the first event with a word, {d['chunk']:.4f} ms for each of",
            f"1,000 sent at once, {d['late_p50']:.2f} ms under way for each of 64 sent 20 ms apart. Spread is the time",
            "from the first of these to the last, as the caller sees it by how they were sent. The local door, which",
            f"stands for API Gateway and Lambda, is part of what is measured of us.{left_out}{peers}",
            "",
            "| through | first event p50 ms | p95 ms | times direct | each event at once, ms | times direct "
            "| each apart p50 ms | p95 ms | spread |",
            "|---|---|---|---|---|---|---|---|---|",
            *rows,
            "",
            f"At most {limits['first_ms']:g} ms and {limits['chunk_ms']:g} ms may be added, or the run fails. What the",
            f"process of the chat function holds (RSS): {big['before'] / 1024:.1f} MB before a stream of",
            f"{big['bytes'] / 1024 / 1024:.0f} MB, at most {big['peak'] / 1024:.1f} MB while it passes; "
            f"{memory['grew_kb'] / 1024:+.1f} MB from stream {readings[0]['streams']} to stream "
            f"{readings[-1]['streams']:,}, where more than {limits['growth_kb'] // 1024} MB would fail.",
        ]
    )


def _where(told: Told) -> str:
    return f"{told['date']}, {told['machine']}"


SECTIONS: Mapping[str, Callable[[Told], str]] = {
    "local": _local,
    "streams": _streams,
    "binding": _binding,
    "callbacks": _callbacks,
    "batch": _batch,
    "memory": _memory,
    "calls": _calls,
}


def main(arguments: list[str]) -> int:
    text = made()
    if "--check" in arguments and PAGE.read_text(encoding="utf-8") != text:
        sys.stderr.write(f"{PAGE.name} is stale: run `make docs`\n")
        return 1
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
