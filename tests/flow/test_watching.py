"""The event stream of a job reports its changes as they happen, and resumes where a watcher was disconnected."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from urllib.parse import urlsplit

import httpx

from local import aws
from local.sandbox_pool import MAX_SANDBOXES
from tests.flow.conftest import Product
from tests.flow.test_batch import RESPONSE, BlockedResponses, wait_until
from tests.sse_reader import Event, messages

CHAT = {"model": "llama3:8b", "messages": [{"role": "user", "content": "hi"}]}
TIMEOUT_S = 20


def queue_job(product: Product, ref_id: str) -> int:
    body = {"refId": ref_id, "request": CHAT}
    return product.http.post("/api/QueueOpenAiChatCompletion", json=body).raise_for_status().json()["id"]


def read_events(response: httpx.Response) -> Iterator[Event]:
    """Yield the events as they arrive; pings do not extend the timeout."""
    assert (response.status_code, response.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert response.headers["cache-control"] == "no-cache"

    def lines() -> Iterator[str]:
        start = time.monotonic()
        for line in response.iter_lines():
            assert time.monotonic() < start + TIMEOUT_S, "no further event arrived"
            yield line

    return messages(lines())


@contextmanager
def watch(product: Product, job_id: int, *, last_event_id: str = "") -> Iterator[Iterator[Event]]:
    headers = {"last-event-id": last_event_id} if last_event_id else {}
    with product.http.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers, timeout=TIMEOUT_S) as response:
        yield read_events(response)


def pause_jobs(product: Product) -> AbstractContextManager[None]:
    """Start no job during the block."""
    sqs = aws.client("sqs", product.cloud.endpoint_url)
    attributes = sqs.get_queue_attributes(QueueUrl=product.cloud.outputs["HostedQueueUrl"], AttributeNames=["QueueArn"])
    return product.cloud.pause(attributes["Attributes"]["QueueArn"])


def test_watcher_receives_every_state_from_queued_to_completed(product: Product) -> None:
    with BlockedResponses(product, 1) as responses, ExitStack() as paused:
        paused.enter_context(pause_jobs(product))
        job_id = queue_job(product, "watched")
        with watch(product, job_id) as events:
            first = next(events)
            assert (first.document["jobState"], first.retry) == ("Queued", 1000)
            paused.close()
            assert next(events).document["jobState"] == "Started"
            responses.release(1)
            last = next(events)
            assert (last.document["jobState"], last.document["provider"]) == ("Completed", "scripted")
            assert list(events) == []
    result = product.http.get(urlsplit(last.document["resultUrl"]).path)
    assert result.content == RESPONSE


def test_watcher_resumes_after_its_last_event_id(product: Product) -> None:
    """After the last event the response is the final status in place of a stream."""
    with BlockedResponses(product, 1) as responses:
        job_id = queue_job(product, "watched twice")
        wait_until(lambda: len(product.upstream.requests) == 1)
        with watch(product, job_id) as events:
            start_event = next(events)
            assert start_event.document["jobState"] == "Started"
        with watch(product, job_id, last_event_id=start_event.id) as events:
            responses.release(1)
            last = next(events)
            assert last.document["jobState"] == "Completed"
    with watch(product, job_id, last_event_id=start_event.id) as events:
        assert [event.id for event in events] == [last.id]
    final_response = product.http.get(f"/v1/jobs/{job_id}/events", headers={"last-event-id": last.id})
    assert final_response.headers["content-type"] == "application/json; charset=utf-8"
    assert final_response.json()["jobState"] == "Completed"
    foreign_headers = {"authorization": f"Bearer {product.cloud.keys.other_api_key}", "last-event-id": last.id}
    assert product.http.get(f"/v1/jobs/{job_id}/events", headers=foreign_headers).status_code == 404


def test_disconnect_frees_the_function_of_a_watcher(product: Product) -> None:
    """If each function ran until its timeout, the last watcher would find no free sandbox."""
    with BlockedResponses(product, 1):
        job_id = queue_job(product, "left")
        for _ in range(MAX_SANDBOXES + 1):
            with watch(product, job_id) as events:
                assert next(events).document["refId"] == "left"
    assert product.wait_for_job("left")["state"] == "Completed"
