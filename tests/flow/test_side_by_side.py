"""A slow provider delays no other job, and a receiver that hangs delays no other callback."""

import threading

from local.receiver import Callback, receiver
from tests.flow.conftest import Product
from tests.flow.test_batch import BlockedResponses, wait_until

CHAT = {"model": "llama3:8b", "messages": [{"role": "user", "content": "hi"}]}
TIMEOUT_S = 20
SOON_S = 10  # shorter than the timeout of a callback


def queue_job(product: Product, ref_id: str, **options: object) -> None:
    body = {"refId": ref_id, "request": CHAT, **options}
    product.http.post("/api/QueueOpenAiChatCompletion", json=body).raise_for_status()


def test_slow_provider_delays_no_other_job(product: Product) -> None:
    with BlockedResponses(product, 1):
        queue_job(product, "slow provider")
        wait_until(lambda: len(product.upstream.requests) == 1)
        queue_job(product, "behind a slow provider")
        assert product.wait_for_job("behind a slow provider")["state"] == "Completed"
        slow = product.http.get("/api/GetOpenAiChat", params={"refId": "slow provider"}).json()["result"]
        assert slow["state"] == "Started"
    assert product.wait_for_job("slow provider")["state"] == "Completed"


def test_hanging_receiver_delays_no_other_callback(product: Product) -> None:
    delivered = threading.Event()

    def respond(callback: Callback) -> int:
        if callback.headers["x-ref-id"] == "hangs":
            delivered.wait(TIMEOUT_S)
        return 200

    with receiver(respond) as hook:
        queue_job(product, "hangs", replyTo=hook.url)
        assert hook.next(TIMEOUT_S).headers["x-ref-id"] == "hangs"
        queue_job(product, "behind", replyTo=hook.url)
        assert hook.next(SOON_S).headers["x-ref-id"] == "behind"
        delivered.set()
