"""Makes one delivery attempt per callback message."""

from collections.abc import Mapping
from typing import Any

from aws_lambda_powertools.metrics import MetricUnit, single_metric

from aiserver import batch, bootstrap, http_api
from aiserver.jobs.states import CallbackState


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    deliver_callback = bootstrap.reply()  # built before the threads start, or each would build one

    def deliver(record: Mapping[str, Any]) -> None:
        job_id, due = batch.parse_message(record, "due")
        remaining_ms = http_api.remaining_ms(context)
        if deliver_callback.deliver(job_id, due=due, remaining_ms=remaining_ms) == CallbackState.DEAD:
            with single_metric(name="DeadCallbacks", unit=MetricUnit.Count, value=1):
                pass

    return batch.process_records(event, deliver, threads=len(event["Records"]))


bootstrap.preload(bootstrap.reply)
