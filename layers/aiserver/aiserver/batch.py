"""Processes batches of SQS and DynamoDB Streams records in parallel, with partial batch responses."""

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiserver import log_events
from aiserver.errors import AiServerError, InvalidRequest, TooManyRequests
from aiserver.http_api import logger

MAX_RELAYED_ATTRIBUTES = 7  # of a dead letter: SQS allows ten attributes, three are added here
MAX_DEAD_LETTER_REASON_CHARS = 1_000  # added to a dead letter: both must stay under SQS's limit of 1 MiB

Handle = Callable[[Mapping[str, Any]], None]


def process_records(event: Mapping[str, Any], handle: Handle, *, threads: int) -> dict[str, Any]:
    """Handle every record of a batch, `threads` at a time; Lambda retries only the records that failed."""

    def attempt(record: Mapping[str, Any]) -> str | None:
        try:
            handle(record)
        except Exception:
            logger.exception(log_events.RECORD_FAILED)
            return record["messageId"] if "messageId" in record else record["dynamodb"]["SequenceNumber"]
        return None

    records = event["Records"]
    if len(records) == 1:  # most batches: no thread is needed
        failures = [attempt(records[0])]
    else:
        with ThreadPoolExecutor(max(1, threads)) as pool:
            failures = list(pool.map(attempt, records))
    return {"batchItemFailures": [{"itemIdentifier": identifier} for identifier in failures if identifier]}


def parse_message(record: Mapping[str, Any], field: str) -> tuple[int, int | None]:
    """The job id in an SQS message, and the integer member `field`, which identifies the wait; None when absent.

    Raises: InvalidRequest, when the message is malformed; such messages end in the dead-letter queue.
    """
    try:
        message = json.loads(record["body"])
        return int(message["id"]), None if message.get(field) is None else int(message[field])
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise InvalidRequest("The message does not contain a job ID") from error


def message_body(record: Mapping[str, Any]) -> str:
    """The body of an SQS message, without a byte order mark."""
    return record["body"].removeprefix("\ufeff")


def message_attribute(record: Mapping[str, Any], name: str) -> str | None:
    """A string attribute of an SQS message; None when it is absent or of another type."""
    return _attributes(record).get(name)


def with_dead_letter(handle: Handle, dead_letter: Callable[[str, Mapping[str, str]], None]) -> Handle:
    """`handle`, except that a message its sender must correct goes to `dead_letter`, with the reason.

    Rate limits (429) and server errors (5xx) are temporary: SQS delivers such a message again.
    """

    def handle_or_dead_letter(record: Mapping[str, Any]) -> None:
        try:
            handle(record)
        except AiServerError as error:
            if error.status >= TooManyRequests.status:
                raise
            failure = {
                "messageId": record["messageId"],
                "errorCode": error.error_code,
                "reason": error.message[:MAX_DEAD_LETTER_REASON_CHARS],
            }
            relayed = dict(list(_attributes(record).items())[:MAX_RELAYED_ATTRIBUTES])
            dead_letter(record["body"], {**relayed, **failure})
            context = {"message_id": record["messageId"], "error": error.error_code}
            logger.info(log_events.MESSAGE_REJECTED, extra=context)

    return handle_or_dead_letter


def _attributes(record: Mapping[str, Any]) -> dict[str, str]:
    """The string attributes of an SQS message."""
    attributes: Mapping[str, Mapping[str, Any]] = record.get("messageAttributes") or {}
    return {
        name: attribute["stringValue"]
        for name, attribute in attributes.items()
        if attribute.get("dataType") == "String"
    }
