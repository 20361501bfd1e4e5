"""Invokes a function with records of a table's stream as Lambda's poller does: in order, one filtered batch at a time.

Differences from Lambda: records that fail too often are skipped and not sent to the mapping's failure destination;
batches are not bisected.
Source: https://docs.aws.amazon.com/lambda/latest/dg/with-ddb.html
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any, cast

from botocore.exceptions import BotoCoreError, ClientError

from local.event_source_mappings import EventSourceMapping
from local.runtime_api import FunctionFailed

IDLE_S = 0.25  # between two polls, as in Lambda
BUSY_S = 0.01  # after records: changes of a job follow each other closely
RETRY_S = 0.5

Record = dict[str, Any]


class StreamPoller:
    """Polls the only shard of a MiniStack stream, from `start` to `stop`."""

    def __init__(self, mapping: EventSourceMapping, streams: Any, invoke: Callable[[bytes], bytes]) -> None:
        self._mapping = mapping
        self._streams = streams
        self._invoke = invoke
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Start no further invocation."""
        self._stopping.set()

    def join(self) -> None:
        """Wait, after `stop`, for the running invocation."""
        self._thread.join()

    def _poll(self) -> None:
        (shard,) = self._streams.describe_stream(StreamArn=self._mapping.arn)["StreamDescription"]["Shards"]
        position = {"ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON"}
        iterator = self._streams.get_shard_iterator(StreamArn=self._mapping.arn, **position)["ShardIterator"]
        pause_s = IDLE_S
        while not self._stopping.wait(pause_s):
            try:
                page = self._streams.get_records(ShardIterator=iterator, Limit=self._mapping.batch_size)
            except (BotoCoreError, ClientError):
                pause_s = RETRY_S
                continue
            iterator = page["NextShardIterator"]
            patterns = self._mapping.patterns
            self._run([record for record in page["Records"] if any(matches(p, record) for p in patterns)])
            pause_s = BUSY_S if page["Records"] else min(2 * pause_s, IDLE_S)

    def _run(self, records: list[Record]) -> None:
        """Invoke the function until no record fails; each retry starts at the first failed record."""
        for _ in range(1 + self._mapping.max_retries):
            records = self._invoke_batch(records)
            if not records or self._stopping.wait(RETRY_S):
                return

    def _invoke_batch(self, records: list[Record]) -> list[Record]:
        """Invoke the function; the records to retry."""
        if not records:
            return []
        ids = [record["dynamodb"]["SequenceNumber"] for record in records]
        event = {"Records": [{**record, "eventSourceARN": self._mapping.arn} for record in records]}
        try:
            response = self._invoke(json.dumps(event, default=_to_json).encode())
        except FunctionFailed:  # already in the function's log
            return records
        failed_ids = self._mapping.batch_failures(response, set(ids))
        return records[min(map(ids.index, failed_ids)) :] if failed_ids else []


def matches(pattern: Any, value: Any) -> bool:
    """The part of Lambda's event filters that template.yaml uses: nested objects and lists of accepted literals.

    Raises: NotImplementedError, when the pattern contains another kind of rule.
    """
    if isinstance(pattern, dict):
        rules, record = cast(dict[str, Any], pattern), cast(dict[str, Any], value)
        return isinstance(value, dict) and all(matches(rule, record.get(name)) for name, rule in rules.items())
    if not all(isinstance(literal, str) for literal in pattern):
        raise NotImplementedError(f"Only literals are supported in an event filter: {pattern}")
    return value in pattern


def _to_json(value: Any) -> Any:
    """Reverse botocore's conversion of a record's timestamps and binary values."""
    return value.timestamp() if isinstance(value, datetime) else base64.b64encode(value).decode()
