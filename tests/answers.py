"""Helpers of the handler tests: events to send, jobs stored in the table, and checks of responses."""

import json
from typing import Any

from aiserver import bootstrap
from aiserver.jobs.job import Job, due_shard
from aiserver.jobs.states import JobState
from tests.moto_stack import MotoStack, event

PROMPT = "Why is the sky blue?"


def event_with_headers(name: str, **headers: str) -> dict[str, Any]:
    """Return the event events/{name}.json with additional headers."""
    request = event(name)
    request["headers"] |= {header.replace("_", "-"): value for header, value in headers.items()}
    return request


def json_body(response: dict[str, Any]) -> Any:
    return json.loads(response["body"])


def queued_job_id(name: str) -> int:
    """Return the job id in the message of a queue event."""
    return int(json.loads(event(name)["Records"][0]["body"])["id"])


def put_job(stack: MotoStack, number: int, **fields: Any) -> Job:
    """Store a job that was accepted just now."""
    now = bootstrap.CLOCK.now_ms()
    defaults: dict[str, Any] = {
        "id": number,
        "owner": "example00000",
        "ref_id": f"ref-{number}",
        "operation": "chat.completions",
        "model": "llama3:8b",
        "queue": "hosted",
        "state": JobState.QUEUED,
        "created_at": now,
        "deadline": now + 3_600_000,
        "request_location": "",
        "request_hash": "h",
        "base_url": "https://ai.example.com",
        "due_shard": due_shard(number),
        "due_at": now + 60_000,
    }
    request = json.dumps({"model": "llama3:8b", "messages": [{"role": "user", "content": PROMPT}]})
    return stack.jobs().create(Job(**(defaults | fields)), request.encode(), now_ms=now).job


def is_error(response: dict[str, Any], status: int, error_code: str) -> bool:
    """Check for the gateway's error body, which is valid in both the ServiceStack and the OpenAI dialect."""
    error = json_body(response)
    return (
        response["statusCode"] == status
        and error["responseStatus"]["errorCode"] == error_code
        and error["responseStatus"]["message"] == error["error"]["message"] != ""
    )
