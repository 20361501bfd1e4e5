"""Runs every minute: retries or ends all overdue jobs and callbacks."""

from typing import Any

from aws_lambda_powertools.metrics import MetricUnit, single_metric

from aiserver import bootstrap, http_api

STOP_MS = 5_000  # before the function's timeout: the next sweep starts within a minute


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    swept = bootstrap.sweep().sweep(remaining_ms=http_api.remaining_ms(context) - STOP_MS)
    with single_metric(name="OldestDueAge", unit=MetricUnit.Milliseconds, value=swept.oldest_due_ms) as metric:
        metric.add_metadata("jobs", swept.jobs)
    if swept.dead_callbacks:
        with single_metric(name="DeadCallbacks", unit=MetricUnit.Count, value=swept.dead_callbacks):
            pass
    if swept.open_circuits:
        with single_metric(name="OpenCircuits", unit=MetricUnit.Count, value=swept.open_circuits):
            pass
    return {"jobs": swept.jobs, "oldestDueMs": swept.oldest_due_ms}


bootstrap.preload(bootstrap.sweep)
