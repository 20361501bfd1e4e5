"""Sees in the table's stream that a job has ended: triggers its ReplyTo and publishes the event."""

from collections.abc import Mapping
from typing import Any

from aiserver import edge, wiring
from aiserver.aws.items import unpack
from aiserver.jobs.job import Job


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    return edge.each_record(event, tell, threads=8)


def tell(record: Mapping[str, Any]) -> None:
    wiring.finished().tell(Job.from_item(unpack(record["dynamodb"]["NewImage"])))


wiring.warm(wiring.finished)
