"""The event source mappings of the deployed functions, taken over from MiniStack, and their partial batch responses.

MiniStack (1.4.21) polls every source in one loop, a batch at a time: a slow invocation delays all other sources.
"""

from __future__ import annotations

import json
from collections.abc import Set
from dataclasses import dataclass
from typing import Any

from local import aws


@dataclass(frozen=True)
class EventSourceMapping:
    """One mapping: the source that is polled and its function. `service` is sqs or dynamodb."""

    service: str
    arn: str
    function_arn: str
    batch_size: int
    reports_failures: bool
    max_invocations: int
    max_retries: int
    patterns: tuple[Any, ...]

    def batch_failures(self, response: bytes, ids: Set[str]) -> Set[str]:
        """The ids of the records that the function's response reports as failed; all `ids` if it is invalid.

        Source: https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html
        """
        if not self.reports_failures:
            return set()
        try:
            partial_response: Any = json.loads(response)
            failures: list[Any] = (partial_response.get("batchItemFailures") if partial_response else None) or []
            failed_ids: set[str] = {failure["itemIdentifier"] for failure in failures}
        except (ValueError, TypeError, KeyError, AttributeError):
            return ids
        return failed_ids if failed_ids <= ids else ids


def take_over(endpoint_url: str) -> list[EventSourceMapping]:
    """Every mapping, disabled in MiniStack so that it no longer polls for them."""
    client = aws.client("lambda", endpoint_url)
    mappings = client.list_event_source_mappings()["EventSourceMappings"]
    for mapping in mappings:
        client.update_event_source_mapping(UUID=mapping["UUID"], Enabled=False)
    return [_parse(mapping) for mapping in mappings]


def _parse(mapping: dict[str, Any]) -> EventSourceMapping:
    return EventSourceMapping(
        service=mapping["EventSourceArn"].split(":")[2],
        arn=mapping["EventSourceArn"],
        function_arn=mapping["FunctionArn"],
        batch_size=int(mapping["BatchSize"]),
        reports_failures="ReportBatchItemFailures" in mapping["FunctionResponseTypes"],
        max_invocations=int(mapping.get("ScalingConfig", {}).get("MaximumConcurrency", 1)),
        max_retries=int(mapping.get("MaximumRetryAttempts", 0)),
        patterns=tuple(json.loads(rule["Pattern"]) for rule in mapping.get("FilterCriteria", {}).get("Filters", [])),
    )
