"""A watcher, connected as browsers are, hears a job's changes as they are made, and comes again where it left off."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from urllib.parse import urlsplit

import httpx

from local import aws
from local.sandbox_pool import MAX_SANDBOXES
from tests.flow.conftest import Product
from tests.flow.test_batch import ANSWER, Held, until
from tests.sse_reader import Event, messages

CHAT = {"model": "llama3:8b", "messages": [{"role": "user", "content": "hi"}]}
PATIENCE_S = 20


def queue_job(product: Product, ref_id: str) -> int:
    ask = {"refId": ref_id, "request": CHAT}
    return product.http.post("/api/QueueOpenAiChatCompletion", json=ask).raise_for_status().json()["id"]


def heard(answer: httpx.Response) -> Iterator[Event]:
    """The events as they come; pings do not keep a test waiting for ever."""
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert answer.headers["cache-control"] == "no-cache"

    def lines() -> Iterator[str]:
        began = time.monotonic()
        for line in answer.iter_lines():
            assert time.monotonic() < began + PATIENCE_S, "nothing more was heard"
            yield line

    return messages(lines())


@contextmanager
def watched(product: Product, job_id: int, *, seen: str = "") -> Iterator[Iterator[Event]]:
    headers = {"last-event-id": seen} if seen else {}
    with product.http.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers, timeout=PATIENCE_S) as answer:
        yield heard(answer)


def paused_jobs(product: Product) -> AbstractContextManager[None]:
    """No job is started while the block lasts."""
    sqs = aws.client("sqs", product.cloud.endpoint_url)
    told = sqs.get_queue_attributes(QueueUrl=product.cloud.outputs["HostedQueueUrl"], AttributeNames=["QueueArn"])
    return product.cloud.paused(told["Attributes"]["QueueArn"])


def test_a_watcher_hears_of_a_job_from_queued_to_its_end_as_it_happens(product: Product) -> None:
    with Held(product, 1) as held, ExitStack() as until_it_may_start:
        until_it_may_start.enter_context(paused_jobs(product))
        job_id = queue_job(product, "watched")
        with watched(product, job_id) as events:
            first = next(events)
            assert (first.document["jobState"], first.retry) == ("Queued", 1000)
            until_it_may_start.close()
            assert next(events).document["jobState"] == "Started"
            held.let_go(1)
            last = next(events)
            assert (last.document["jobState"], last.document["provider"]) == ("Completed", "scripted")
            assert list(events) == []
    result = product.http.get(urlsplit(last.document["resultUrl"]).path)
    assert result.content == ANSWER


def test_who_comes_again_goes_on_where_the_stream_broke_off_and_is_told_when_there_is_no_more(
    product: Product,
) -> None:
    with Held(product, 1) as held:
        job_id = queue_job(product, "watched twice")
        until(lambda: len(product.upstream.requests) == 1)
        with watched(product, job_id) as events:
            started = next(events)
            assert started.document["jobState"] == "Started"
        with watched(product, job_id, seen=started.id) as events:
            held.let_go(1)
            last = next(events)
            assert last.document["jobState"] == "Completed"
    with watched(product, job_id, seen=started.id) as events:
        assert [told.id for told in events] == [last.id]
    over = product.http.get(f"/v1/jobs/{job_id}/events", headers={"last-event-id": last.id})
    assert over.headers["content-type"] == "application/json; charset=utf-8"
    assert over.json()["jobState"] == "Completed"
    other = {"authorization": f"Bearer {product.cloud.seeded.other_api_key}", "last-event-id": last.id}
    assert product.http.get(f"/v1/jobs/{job_id}/events", headers=other).status_code == 404


def test_who_goes_away_frees_the_function_that_told_them(product: Product) -> None:
    """Were it held until its time is over, the last of these would find all taken."""
    with Held(product, 1):
        job_id = queue_job(product, "left")
        for _ in range(MAX_SANDBOXES + 1):
            with watched(product, job_id) as events:
                assert next(events).document["refId"] == "left"
    assert product.ended("left")["state"] == "Completed"
