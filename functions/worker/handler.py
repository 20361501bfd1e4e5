"""Runs the queued jobs of a batch side by side, each settled on its own."""

from collections.abc import Mapping
from typing import Any

from aiserver import batch, bootstrap, http_api


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    work = bootstrap.worker()  # before there are threads, each of which would build its own

    def run(record: Mapping[str, Any]) -> None:
        job_id, attempt = batch.parse_message(record, "attempt")
        work.run(job_id, attempt=attempt, remaining_ms=http_api.remaining_ms(context))

    return batch.process_records(event, run, threads=len(event["Records"]))


bootstrap.preload(bootstrap.worker)
