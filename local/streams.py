"""Feeds a function from a table's stream as Lambda's poller does: in order, a filtered batch at a time.

Less than Lambda: what failed too often is skipped and not told to the mapping's destination; no batch is bisected.
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

IDLE_S = 0.25  # between two looks, as of Lambda
BUSY_S = 0.01  # after records: one change of a job soon follows another
RETRY_S = 0.5

Record = dict[str, Any]


class StreamPoller:
    """Polls the one shard that MiniStack makes of a stream, from `start` to `stop`."""

    def __init__(self, source: EventSourceMapping, streams: Any, invoke: Callable[[bytes], bytes]) -> None:
        self._source = source
        self._streams = streams
        self._invoke = invoke
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Begin no invocation any more."""
        self._over.set()

    def join(self) -> None:
        """Wait, once stopped, for the invocation under way."""
        self._thread.join()

    def _poll(self) -> None:
        (shard,) = self._streams.describe_stream(StreamArn=self._source.arn)["StreamDescription"]["Shards"]
        start = {"ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON"}
        at = self._streams.get_shard_iterator(StreamArn=self._source.arn, **start)["ShardIterator"]
        pause_s = IDLE_S
        while not self._over.wait(pause_s):
            try:
                told = self._streams.get_records(ShardIterator=at, Limit=self._source.batch_size)
            except (BotoCoreError, ClientError):
                pause_s = RETRY_S
                continue
            at = told["NextShardIterator"]
            self._run([one for one in told["Records"] if any(matches(p, one) for p in self._source.patterns)])
            pause_s = BUSY_S if told["Records"] else min(2 * pause_s, IDLE_S)

    def _run(self, records: list[Record]) -> None:
        """Invoke the function until it is done with all; each time from the first on that it is not done with."""
        for _ in range(1 + self._source.max_retries):
            records = self._left(records)
            if not records or self._over.wait(RETRY_S):
                return

    def _left(self, records: list[Record]) -> list[Record]:
        if not records:
            return []
        ids = [one["dynamodb"]["SequenceNumber"] for one in records]
        event = {"Records": [{**one, "eventSourceARN": self._source.arn} for one in records]}
        try:
            failed = self._source.failed(self._invoke(json.dumps(event, default=_plain).encode()), set(ids))
        except FunctionFailed:  # its log says so
            return records
        return records[min(map(ids.index, failed)) :] if failed else []


def matches(pattern: Any, value: Any) -> bool:
    """Lambda's event filter, as far as we use it: nested objects, and a list of the literals that are wanted."""
    if isinstance(pattern, dict):
        members, record = cast(dict[str, Any], pattern), cast(dict[str, Any], value)
        return isinstance(value, dict) and all(matches(wanted, record.get(name)) for name, wanted in members.items())
    if not all(isinstance(wanted, str) for wanted in pattern):
        raise NotImplementedError(f"this matcher knows literals only: {pattern}")
    return value in pattern


def _plain(value: Any) -> Any:
    """What botocore has made of a record's JSON, back again."""
    return value.timestamp() if isinstance(value, datetime) else base64.b64encode(value).decode()
