"""Sees in the table's stream that a job has ended: triggers its ReplyTo and publishes the event."""

from collections.abc import Mapping
from typing import Any

from aiserver import batch, bootstrap
from aiserver.aws.items import unpack
from aiserver.jobs.job import Job


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    finished = bootstrap.finished()  # before there are threads, each of which would build its own

    def tell(record: Mapping[str, Any]) -> None:
        finished.on_job_finished(Job.from_item(unpack(record["dynamodb"]["NewImage"])))

    return batch.process_records(event, tell, threads=8)


bootstrap.preload(bootstrap.finished)
