"""Runs the queued jobs of an SQS batch in parallel, with partial batch responses."""

from collections.abc import Mapping
from typing import Any

from aiserver import batch, bootstrap, http_api


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    run_job = bootstrap.worker()  # built before the threads start, or each would build one

    def run(record: Mapping[str, Any]) -> None:
        job_id, attempt = batch.parse_message(record, "attempt")
        run_job.run(job_id, attempt=attempt, remaining_ms=http_api.remaining_ms(context))

    return batch.process_records(event, run, threads=len(event["Records"]))


bootstrap.preload(bootstrap.worker)
