"""Who waits holds up nobody else: neither a job at a slow provider, nor a callback at a receiver that hangs."""

import threading

from local.receiver import Callback, receiver
from tests.flow.conftest import Product
from tests.flow.test_batch import Held, until

CHAT = {"model": "llama3:8b", "messages": [{"role": "user", "content": "hi"}]}
PATIENCE_S = 20
SOON_S = 10  # before the deliverer gives up on a receiver that hangs


def queue_job(product: Product, ref_id: str, **more: object) -> None:
    ask = {"refId": ref_id, "request": CHAT, **more}
    product.http.post("/api/QueueOpenAiChatCompletion", json=ask).raise_for_status()


def test_a_job_at_a_slow_provider_holds_up_no_other(product: Product) -> None:
    with Held(product, 1):
        queue_job(product, "slow provider")
        until(lambda: len(product.upstream.requests) == 1)
        queue_job(product, "behind a slow provider")
        assert product.ended("behind a slow provider")["state"] == "Completed"
        slow = product.http.get("/api/GetOpenAiChat", params={"refId": "slow provider"}).json()["result"]
        assert slow["state"] == "Started"
    assert product.ended("slow provider")["state"] == "Completed"


def test_a_receiver_that_hangs_holds_up_no_other_callback(product: Product) -> None:
    heard = threading.Event()

    def answer(callback: Callback) -> int:
        if callback.headers["x-ref-id"] == "hangs":
            heard.wait(PATIENCE_S)
        return 200

    with receiver(answer) as hook:
        queue_job(product, "hangs", replyTo=hook.url)
        assert hook.next(PATIENCE_S).headers["x-ref-id"] == "hangs"
        queue_job(product, "behind", replyTo=hook.url)
        assert hook.next(SOON_S).headers["x-ref-id"] == "behind"
        heard.set()
