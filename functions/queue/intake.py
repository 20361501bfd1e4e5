"""Takes jobs that other AWS services send to the intake queue; what can never be a job goes to its dead letters."""

from collections.abc import Mapping
from typing import Any

from aiserver import batch, bootstrap
from aiserver.wire import requests


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    parts = bootstrap.intake()  # before there are threads, each of which would build its own

    def accept(record: Mapping[str, Any]) -> None:
        asked = requests.bind_intake_message(batch.message_body(record), batch.message_attribute(record, "keyId"))
        parts.intake.accept(asked, message_id=record["messageId"])

    return batch.process_records(
        event, batch.with_dead_letter(accept, parts.dead_letters.put), threads=len(event["Records"])
    )


bootstrap.preload(bootstrap.intake)
