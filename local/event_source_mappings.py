"""The event source mappings of the deployed functions, taken over from MiniStack, and what a function's answer says.

MiniStack (1.4.21) polls every source in one loop, a batch at a time: whoever waits in one holds up all the others.
"""

from __future__ import annotations

import json
from collections.abc import Set
from dataclasses import dataclass
from typing import Any

from local import aws


@dataclass(frozen=True)
class EventSourceMapping:
    """One mapping: what is polled, for which function. `service` is sqs or dynamodb, whose word the rest follows."""

    service: str
    arn: str
    function_arn: str
    batch_size: int
    reports_failures: bool
    max_invocations: int
    max_retries: int
    patterns: tuple[Any, ...]

    def failed(self, answer: bytes, ids: Set[str]) -> Set[str]:
        """Which records of a batch the function names as failed: all where it is not clear which.

        Source: https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html
        """
        if not self.reports_failures:
            return set()
        try:
            told: Any = json.loads(answer)
            failures: list[Any] = (told.get("batchItemFailures") if told else None) or []
            failed: set[str] = {failure["itemIdentifier"] for failure in failures}
        except (ValueError, TypeError, KeyError, AttributeError):
            return ids
        return failed if failed <= ids else ids


def take_over(endpoint_url: str) -> list[EventSourceMapping]:
    """Every mapping; MiniStack stops to poll for them."""
    client = aws.client("lambda", endpoint_url)
    mappings = client.list_event_source_mappings()["EventSourceMappings"]
    for mapping in mappings:
        client.update_event_source_mapping(UUID=mapping["UUID"], Enabled=False)
    return [_source(mapping) for mapping in mappings]


def _source(mapping: dict[str, Any]) -> EventSourceMapping:
    return EventSourceMapping(
        service=mapping["EventSourceArn"].split(":")[2],
        arn=mapping["EventSourceArn"],
        function_arn=mapping["FunctionArn"],
        batch_size=int(mapping["BatchSize"]),
        reports_failures="ReportBatchItemFailures" in mapping["FunctionResponseTypes"],
        max_invocations=int(mapping.get("ScalingConfig", {}).get("MaximumConcurrency", 1)),
        max_retries=int(mapping.get("MaximumRetryAttempts", 0)),
        patterns=tuple(json.loads(one["Pattern"]) for one in mapping.get("FilterCriteria", {}).get("Filters", [])),
    )
