"""Accepts jobs that other AWS services send to the intake queue; invalid messages go to its dead-letter queue."""

from collections.abc import Mapping
from typing import Any

from aiserver import batch, bootstrap
from aiserver.wire import requests


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    parts = bootstrap.intake()  # built before the threads start, or each would build one

    def accept(record: Mapping[str, Any]) -> None:
        message = requests.bind_intake_message(batch.message_body(record), batch.message_attribute(record, "keyId"))
        parts.intake.accept(message, message_id=record["messageId"])

    return batch.process_records(
        event, batch.with_dead_letter(accept, parts.dead_letters.put), threads=len(event["Records"])
    )


bootstrap.preload(bootstrap.intake)
