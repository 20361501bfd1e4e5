"""Peak memory of a worker with ten large concurrent responses: writes benchmarks/results/memory.json and the page.

The worker is one real process of Lambda's runtime client; it receives one SQS batch of ten messages.
"""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks import page
from benchmarks.batch import MODELS, accept_jobs, worker_event
from local import ministack
from local.choose_upstream import build_scripted_upstream
from local.cloud import Cloud
from local.scripted import ScriptedProvider

MB = 1024 * 1024
# The content of a response; the last three would take the most memory as Python objects.
FORMS = {
    "ASCII text": b'"%s"' % (b"y" * 1000),
    "3-byte characters, one emoji": '"{}😀"'.format("語" * 300).encode(),
    "escaped quotes": b'"%s"' % (b'\\"' * 500),
    "small objects": b'{"a":1}',
    "small nested objects": b'{"a":{"b":[{"c":[1.5]}]}}',
}


@dataclass(frozen=True)
class BatchMemory:
    """A batch's job ids, the memory of its worker before and at its peak, and the duration."""

    job_ids: list[int]
    before_mb: int
    peak_mb: int
    duration_s: float


def response_body(form: str, size: int) -> bytes:
    """A response body of about `size` bytes."""
    unit = FORMS[form]
    return b'{"id":"big","choices":[{},%s],"usage":{"total_tokens":1}}' % b",".join([unit] * (size // (len(unit) + 1)))


def run_batch(cloud: Cloud, upstream: ScriptedProvider, bodies: Sequence[bytes]) -> BatchMemory:
    """Accept one job per response body, without queue messages, and run them in one worker invocation."""
    cloud.invoke("worker", b'{"Records": []}')
    before_mb = cloud.max_memory_used_mb("worker")
    for body in bodies:
        upstream.respond_with(200, body)
    ids = accept_jobs(cloud, MODELS["hosted"], len(bodies))
    started = time.monotonic()
    failures = json.loads(cloud.invoke("worker", json.dumps(worker_event(ids)).encode()))["batchItemFailures"]
    if failures:
        raise AssertionError(f"{len(failures)} of {len(ids)} jobs failed")
    return BatchMemory(ids, before_mb, cloud.max_memory_used_mb("worker"), time.monotonic() - started)


def main() -> int:
    rows: list[dict[str, object]] = []
    for form, count, megabytes in [
        *((form, 10, 20) for form in FORMS),
        ("ASCII text", 1, 50),
        ("small objects", 1, 50),
    ]:
        with ScriptedProvider() as upstream, Cloud(build_scripted_upstream(upstream)) as cloud:
            usage = run_batch(cloud, upstream, [response_body(form, megabytes * MB)] * count)
        row: dict[str, object] = {"form": form, "times": count, "megabytes": megabytes}
        rows.append(row | {"before": usage.before_mb, "peak": usage.peak_mb, "seconds": round(usage.duration_s, 1)})
        print(rows[-1], flush=True)
    page.save("memory", {"rows": rows})
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ministack.CloudFailed as error:
        sys.exit(f"bench: {error}")
