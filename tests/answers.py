"""What tests of the handlers share: calls to make, jobs that stand in the table, and what an answer says."""

import json
from typing import Any

from aiserver import bootstrap
from aiserver.jobs.job import Job, due_shard
from aiserver.jobs.states import JobState
from tests.moto_stack import MotoStack, event

PROMPT = "Why is the sky blue?"


def call(name: str, **headers: str) -> dict[str, Any]:
    """An event's call with more headers."""
    changed = event(name)
    changed["headers"] |= {header.replace("_", "-"): value for header, value in headers.items()}
    return changed


def body(answer: dict[str, Any]) -> Any:
    return json.loads(answer["body"])


def job_id(name: str) -> int:
    """The job that a queue's event hints at."""
    return int(json.loads(event(name)["Records"][0]["body"])["id"])


def put_job(stack: MotoStack, number: int, **more: Any) -> Job:
    """Write a job that was accepted just now."""
    now = bootstrap.CLOCK.now_ms()
    values: dict[str, Any] = {
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
    return stack.jobs().create(Job(**(values | more)), request.encode(), now_ms=now).job


def is_error(answer: dict[str, Any], status: int, error_code: str) -> bool:
    """Whether an answer is the one error body, in both dialects."""
    told = body(answer)
    return (
        answer["statusCode"] == status
        and told["responseStatus"]["errorCode"] == error_code
        and told["responseStatus"]["message"] == told["error"]["message"] != ""
    )
