"""Bodies at each limit: they come through byte for byte, are kept where they belong, and are shown as they fit."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from benchmarks import memory
from local import aws
from tests.flow.conftest import Product
from tests.flow.test_wire import both

KB, MB = 1024, 1024 * 1024
CHAT = b'{"model":"llama3:8b","messages":[{"role":"user","content":"hi"}],"x":"%s"}'
TOLD = b'{"id":"big","choices":[{}],"usage":{"total_tokens":1},"x":"%s"}'
LARGE = (413, "PayloadTooLarge", "invalid_request_error", "request_too_large")
WORKER_MB = 1024  # its MemorySize
SPARE_MB = 400


def of(size: int, around: bytes = CHAT, fill: bytes = b"x") -> bytes:
    """A body of exactly `size` bytes."""
    filled = fill * ((size - len(around) + 2) // len(fill))
    return around % filled.ljust(size - len(around) + 2, b".")


class Kept:
    """What the embedded cloud holds of a job's bodies, read past the product."""

    def __init__(self, product: Product) -> None:
        self._outputs = product.cloud.outputs
        self._dynamodb = aws.client("dynamodb", product.cloud.endpoint_url)
        self._s3 = aws.client("s3", product.cloud.endpoint_url)

    def item(self, job_id: int, kind: str) -> bytes | None:
        key = {"pk": {"S": f"JOB#{job_id}"}, "sk": {"S": kind}}
        found = self._dynamodb.get_item(TableName=self._outputs["JobsTable"], Key=key).get("Item")
        return found["body"]["B"] if found else None

    def objects(self, job_id: int, kind: str) -> Iterator[str]:
        where = {"Bucket": self._outputs["BodiesBucket"], "Prefix": f"jobs/{job_id}/{kind.lower()}-"}
        yield from (found["Key"] for found in self._s3.list_objects_v2(**where).get("Contents", []))

    def object(self, job_id: int, kind: str) -> bytes | None:
        keys = list(self.objects(job_id, kind))
        assert len(keys) <= 1
        got = [self._s3.get_object(Bucket=self._outputs["BodiesBucket"], Key=key)["Body"].read() for key in keys]
        return got[0] if got else None

    def remove(self, job_id: int, kind: str) -> None:
        """As the bucket's lifecycle and the table's time to live do."""
        for name in self.objects(job_id, kind):
            self._s3.delete_object(Bucket=self._outputs["BodiesBucket"], Key=name)
        key = {"pk": {"S": f"JOB#{job_id}"}, "sk": {"S": kind}}
        self._dynamodb.delete_item(TableName=self._outputs["JobsTable"], Key=key)


def ran(product: Product, asked: bytes, told: bytes) -> int:
    """The id of a job that has been asked and answered so, each body having arrived as it was sent."""
    product.upstream.answer_with(200, told)
    queued = product.http.post("/v1/queue/chat/completions", content=asked).json()
    assert product.ended(queued["refId"])["state"] == "Completed"
    (sent,) = product.upstream.requests
    assert sent.body == asked
    assert product.http.get(f"/v1/jobs/{queued['id']}/result", follow_redirects=True).content == told
    return queued["id"]


def status(product: Product, job_id: int) -> dict[str, Any]:
    return product.http.get("/api/GetOpenAiChatStatus", params={"jobId": job_id}).json()


def record(product: Product, job_id: int) -> dict[str, Any]:
    answer = product.http.get("/api/GetOpenAiChat", params={"id": job_id})
    assert answer.status_code == 200, answer.text[:500]
    return answer.json()["result"]


@pytest.mark.parametrize("size", [31 * KB, 32 * KB - 1, 32 * KB, 32 * KB + 1, 33 * KB, 300 * KB])
def test_a_body_is_an_item_up_to_32_kb_and_an_object_above(size: int, product: Product) -> None:
    asked, told = of(size), of(size, TOLD)
    job_id = ran(product, asked, told)
    kept = Kept(product)
    for kind, body in (("REQUEST", asked), ("RESULT", told)):
        is_item = size <= 32 * KB
        assert (kept.item(job_id, kind), kept.object(job_id, kind)) == ((body, None) if is_item else (None, body))
    shown = record(product, job_id)
    assert (shown["requestBody"], shown["responseBody"]) == (asked.decode(), told.decode())


@pytest.mark.parametrize(
    ("megabytes_in", "megabytes_out", "inline"),
    [
        (0.9, 0.9, {"result", "chatResponse"}),
        (1.1, 1.9, {"result", "chatResponse"}),
        (0.1, 2.1, {"result"}),
        (4.9, 4.1, set()),
        (0.1, 20, set()),
    ],
)
def test_a_status_holds_what_fits_and_a_record_strings_of_up_to_1_mb(
    megabytes_in: float, megabytes_out: float, inline: set[str], product: Product
) -> None:
    asked, told = of(int(megabytes_in * MB)), of(int(megabytes_out * MB), TOLD)
    job_id = ran(product, asked, told)
    result = product.http.get(f"/v1/jobs/{job_id}/result")
    assert result.status_code == (200 if inline else 302)
    shown = status(product, job_id)
    assert shown["resultUrl"] == f"{product.url}/v1/jobs/{job_id}/result"
    assert {name for name in ("result", "chatResponse") if name in shown} == inline
    assert all(shown[name] == json.loads(told) for name in inline)
    whole = record(product, job_id)
    strings = {"requestBody": (asked, "requestUrl"), "responseBody": (told, "resultUrl")}
    for name, (body, instead) in strings.items():
        if len(body) <= MB:
            assert (whole[name], instead in whole) == (body.decode(), False)
        else:
            assert name not in whole
            assert instead == "resultUrl" or httpx.get(whole[instead]).content == body


@pytest.mark.parametrize("fill", ["x", "語"])
def test_a_sync_chat_takes_4_9_mb_of_any_letters(fill: str, product: Product) -> None:
    asked = of(int(4.9 * MB), fill=fill.encode())
    answer = product.http.post("/v1/chat/completions", content=asked)
    assert answer.status_code == 200, answer.text
    assert product.upstream.requests[0].body == asked


@pytest.mark.parametrize(
    ("path", "around"),
    [
        ("/v1/chat/completions", CHAT),
        ("/v1/queue/chat/completions", CHAT),
        ("/api/QueueOpenAiChatCompletion", b'{"request":' + CHAT + b"}"),
    ],
)
def test_more_than_5_mb_is_refused_by_us_and_an_event_of_more_than_6_mb_before_us(
    path: str, around: bytes, product: Product
) -> None:
    ours = product.http.post(path, content=of(int(5.1 * MB), around))
    gateway_s = product.http.post(path, content=of(int(4.9 * MB), around, fill=b'\\"'))
    assert (both(ours), both(gateway_s)) == (LARGE, LARGE)
    assert ours.json()["error"]["message"] == "The request body is over 5 MB"
    assert gateway_s.json()["error"]["message"] == "The request body is too large"
    assert product.upstream.requests == []


def test_a_sync_answer_may_be_larger_than_what_lambda_sends_at_once(product: Product) -> None:
    large = of(20 * MB, TOLD, "語".encode())
    product.upstream.answer_with(200, large)
    answer = product.http.post("/v1/chat/completions", content=of(KB))
    assert (answer.status_code, answer.content) == (200, large)


def test_ten_results_of_20_mb_side_by_side_leave_the_worker_memory_to_spare(product: Product) -> None:
    forms = ["letters", "text of three bytes a letter, one emoji", "small objects"]
    told = {form: memory.answer(form, 20 * MB) for form in forms}
    batch = [*told.values()] * 3 + [told["letters"]]
    measured = memory.run_batch(product.cloud, product.upstream, batch)
    assert measured.peak_mb < WORKER_MB - SPARE_MB
    kept = Kept(product)
    assert {kept.object(job_id, "RESULT") for job_id in measured.job_ids[:3]} <= set(batch)


@pytest.mark.parametrize("size", [KB, 40 * KB])
def test_a_body_that_is_no_longer_kept_is_left_out(size: int, product: Product) -> None:
    job_id = ran(product, of(size), of(size, TOLD))
    kept = Kept(product)
    kept.remove(job_id, "REQUEST")
    shown = record(product, job_id)
    assert (shown["state"], shown["responseBody"]) == ("Completed", of(size, TOLD).decode())
    assert not {"requestBody", "requestUrl"} & shown.keys()
    kept.remove(job_id, "RESULT")
    assert "responseBody" not in record(product, job_id)
    assert (status(product, job_id)["jobState"], "result" in status(product, job_id)) == ("Completed", False)
    gone = product.http.get(f"/v1/jobs/{job_id}/result")
    assert both(gone) == (404, "NotFound", "invalid_request_error", "not_found")
