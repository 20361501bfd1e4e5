"""Batches in: the records of SQS and of the table's stream, handled side by side, each on its own."""

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiserver.errors import AiServerError, InvalidRequest, TooManyRequests
from aiserver.http_api import logger

MAX_RELAYED_ATTRIBUTES = 7  # of a refused message: SQS takes ten, and three are ours
MAX_REASON_CHARS = 1_000  # beside a refused message, which with it must stay under SQS's 1 MiB

Handle = Callable[[Mapping[str, Any]], None]


def process_records(event: Mapping[str, Any], handle: Handle, *, threads: int) -> dict[str, Any]:
    """Handle every record of a batch, `threads` at a time; only those that failed come again."""

    def attempt(record: Mapping[str, Any]) -> str | None:
        try:
            handle(record)
        except Exception:
            logger.exception("record failed")
            return record["messageId"] if "messageId" in record else record["dynamodb"]["SequenceNumber"]
        return None

    records = event["Records"]
    if len(records) == 1:  # most batches: no thread is needed
        failed = [attempt(records[0])]
    else:
        with ThreadPoolExecutor(max(1, threads)) as pool:
            failed = list(pool.map(attempt, records))
    return {"batchItemFailures": [{"itemIdentifier": record} for record in failed if record]}


def parse_message(record: Mapping[str, Any], field: str) -> tuple[int, int | None]:
    """The job id an SQS message hints at, and which of the job's waits it is for, `about`, where it says.

    Raises: InvalidRequest: what is malformed ends in the dead letters.
    """
    try:
        told = json.loads(record["body"])
        return int(told["id"]), None if told.get(field) is None else int(told[field])
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise InvalidRequest("The message names no job") from error


def message_body(record: Mapping[str, Any]) -> str:
    """What an SQS message says, a byte order mark left out."""
    return record["body"].removeprefix("\ufeff")


def message_attribute(record: Mapping[str, Any], name: str) -> str | None:
    """An SQS message's own attribute, where it has that one as a string."""
    return _attributes(record).get(name)


def with_dead_letter(handle: Handle, dead_letter: Callable[[str, Mapping[str, str]], None]) -> Handle:
    """`handle`, but a message that can never be taken is given to `refuse`, with the reason, and is done with.

    That is one whose sender is at fault. A limit passes, and so may a fault of ours: such a message comes again.
    """

    def handle_or_refuse(record: Mapping[str, Any]) -> None:
        try:
            handle(record)
        except AiServerError as error:
            if error.status >= TooManyRequests.status:
                raise
            about = {"messageId": record["messageId"], "errorCode": error.error_code}
            reason = error.message[:MAX_REASON_CHARS]
            sent = dict(list(_attributes(record).items())[:MAX_RELAYED_ATTRIBUTES])
            dead_letter(record["body"], {**sent, **about, "reason": reason})
            logger.info("refused", extra={"message_id": record["messageId"], "error": error.error_code})

    return handle_or_refuse


def _attributes(record: Mapping[str, Any]) -> dict[str, str]:
    """The attributes an SQS message was sent with, as far as they are strings."""
    sent: Mapping[str, Mapping[str, Any]] = record.get("messageAttributes") or {}
    return {name: one["stringValue"] for name, one in sent.items() if one.get("dataType") == "String"}
