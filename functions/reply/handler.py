"""Makes one attempt to deliver a callback for each message."""

from collections.abc import Mapping
from typing import Any

from aiserver import edge, wiring


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    return edge.each_record(event, deliver, threads=len(event["Records"]))


def deliver(record: Mapping[str, Any]) -> None:
    wiring.reply().deliver(edge.message(record))


wiring.warm(wiring.reply)
