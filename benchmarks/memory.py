"""How much memory one worker needs for ten large answers at once: writes benchmarks/results/memory.json and the page.

The worker is one real process of Lambda's runtime client, given one batch of ten messages, as SQS would give it.
"""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks import page
from benchmarks.batch import MODELS, batch, unsent
from local import ministack
from local.choose_upstream import scripted_upstream
from local.cloud import Cloud
from local.scripted import ScriptedProvider

MB = 1024 * 1024
# What an answer is full of; the last three are where Python's own objects would take the most.
FORMS = {
    "letters": b'"%s"' % (b"y" * 1000),
    "text of three bytes a letter, one emoji": '"{}😀"'.format("語" * 300).encode(),
    "escaped quotes": b'"%s"' % (b'\\"' * 500),
    "small objects": b'{"a":1}',
    "small nested objects": b'{"a":{"b":[{"c":[1.5]}]}}',
}


@dataclass(frozen=True)
class Measured:
    """A batch that was run: its jobs, the memory its worker held before and at most, and how long it took."""

    job_ids: list[int]
    before_mb: int
    peak_mb: int
    took_s: float


def answer(form: str, size: int) -> bytes:
    """An answer of about `size` bytes."""
    unit = FORMS[form]
    return b'{"id":"big","choices":[{},%s],"usage":{"total_tokens":1}}' % b",".join([unit] * (size // (len(unit) + 1)))


def run_batch(cloud: Cloud, upstream: ScriptedProvider, answers: Sequence[bytes]) -> Measured:
    """Queue a job for each answer, without a message, and give all of them to one worker."""
    cloud.invoke("worker", b'{"Records": []}')
    before_mb = cloud.max_memory_used_mb("worker")
    for told in answers:
        upstream.answer_with(200, told)
    ids = unsent(cloud, MODELS["hosted"], len(answers))
    started = time.monotonic()
    failed = json.loads(cloud.invoke("worker", json.dumps(batch(ids)).encode()))["batchItemFailures"]
    if failed:
        raise AssertionError(f"{len(failed)} of {len(ids)} jobs failed")
    return Measured(ids, before_mb, cloud.max_memory_used_mb("worker"), time.monotonic() - started)


def main() -> int:
    rows: list[dict[str, object]] = []
    for form, times, megabytes in [*((form, 10, 20) for form in FORMS), ("letters", 1, 50), ("small objects", 1, 50)]:
        with ScriptedProvider() as upstream, Cloud(scripted_upstream(upstream)) as cloud:
            measured = run_batch(cloud, upstream, [answer(form, megabytes * MB)] * times)
        row: dict[str, object] = {"form": form, "times": times, "megabytes": megabytes}
        rows.append(
            row | {"before": measured.before_mb, "peak": measured.peak_mb, "seconds": round(measured.took_s, 1)}
        )
        print(rows[-1], flush=True)
    page.keep("memory", {"rows": rows})
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ministack.CloudFailed as failed:
        sys.exit(f"bench: {failed}")
