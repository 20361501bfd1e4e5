"""Consumes the table's stream: queues the callback of each finished job and publishes its completion event."""

from collections.abc import Mapping
from typing import Any

from aiserver import batch, bootstrap
from aiserver.aws.items import unpack
from aiserver.jobs.job import Job


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    notifier = bootstrap.finished()  # built before the threads start, or each would build one

    def notify(record: Mapping[str, Any]) -> None:
        notifier.on_job_finished(Job.from_item(unpack(record["dynamodb"]["NewImage"])))

    return batch.process_records(event, notify, threads=8)


bootstrap.preload(bootstrap.finished)
