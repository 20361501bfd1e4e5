"""Runs the queued jobs of a batch side by side, each settled on its own."""

from collections.abc import Mapping
from typing import Any

from aiserver import edge, records, wiring


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    work = wiring.worker()  # before there are threads, each of which would build its own

    def run(record: Mapping[str, Any]) -> None:
        job_id, attempt = records.message(record, "attempt")
        work.run(job_id, attempt=attempt, left_ms=edge.remaining_ms(context))

    return records.each_record(event, run, threads=len(event["Records"]))


wiring.warm(wiring.worker)
