"""Poison: a message nobody can handle ends among the dead letters, and the jobs around it and behind it do not."""

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager

import pytest

from local import aws
from tests.flow.conftest import Product

CHAT = {"model": "llama3:8b", "messages": [{"role": "user", "content": "hi"}]}
POISON = '{"id": "not a job"}'
WAIT_S = 20  # SQS's longest; it answers as soon as there is a message


class HostedQueue:
    """The job queue of the running product, a message of which comes again after a second instead of 90 minutes."""

    def __init__(self, product: Product) -> None:
        self._cloud = product.cloud
        self._sqs = aws.client("sqs", product.cloud.endpoint_url)
        self.url = product.cloud.outputs["HostedQueueUrl"]
        told = self._sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=["All"])["Attributes"]
        self.visibility, self._redrive = told["VisibilityTimeout"], json.loads(told["RedrivePolicy"])
        self._arn = told["QueueArn"]
        name = self._redrive["deadLetterTargetArn"].rpartition(":")[2]
        self._dead = self._sqs.get_queue_url(QueueName=name)["QueueUrl"]

    def come_again_after(self, seconds: str) -> None:
        self._sqs.set_queue_attributes(QueueUrl=self.url, Attributes={"VisibilityTimeout": seconds})

    def without_a_worker(self) -> AbstractContextManager[None]:
        """What is sent meanwhile is one batch afterwards."""
        return self._cloud.paused(self._arn)

    def send(self, body: str) -> None:
        self._sqs.send_message(QueueUrl=self.url, MessageBody=body)

    def take_and_die(self) -> None:
        """As a worker that takes each message as often as it may, and dies each time."""
        for _ in range(int(self._redrive["maxReceiveCount"]) + 1):
            self._sqs.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10, VisibilityTimeout=0)

    def dead_letter(self) -> str:
        (message,) = self._sqs.receive_message(QueueUrl=self._dead, WaitTimeSeconds=WAIT_S)["Messages"]
        self._sqs.delete_message(QueueUrl=self._dead, ReceiptHandle=message["ReceiptHandle"])
        return message["Body"]


@pytest.fixture
def hosted(product: Product) -> Iterator[HostedQueue]:
    queue = HostedQueue(product)
    queue.come_again_after("1")
    yield queue
    queue.come_again_after(queue.visibility)


def queue_job(product: Product, ref_id: str) -> int:
    ask = {"refId": ref_id, "request": CHAT}
    return product.http.post("/api/QueueOpenAiChatCompletion", json=ask).json()["id"]


def date_back(product: Product, job_id: int, *names: str) -> None:
    """Make these times of a job ones that have passed."""
    aws.client("dynamodb", product.cloud.endpoint_url).update_item(
        TableName=product.cloud.outputs["JobsTable"],
        Key={"pk": {"S": f"JOB#{job_id}"}, "sk": {"S": "JOB"}},
        UpdateExpression="SET " + ", ".join(f"{name} = :past" for name in names),
        ExpressionAttributeValues={":past": {"N": "1"}},
    )


def sweep(product: Product) -> None:
    product.cloud.invoke("sweep", b"{}")


def test_a_malformed_message_ends_among_the_dead_letters_and_its_batch_is_done(
    product: Product, hosted: HostedQueue
) -> None:
    with hosted.without_a_worker():
        queue_job(product, "beside poison 1")
        hosted.send(POISON)
        queue_job(product, "beside poison 2")
    for ref_id in ("beside poison 1", "beside poison 2"):
        job = product.ended(ref_id)
        assert (job["state"], job["attempts"]) == ("Completed", 1)
    assert hosted.dead_letter() == POISON
    assert len(product.upstream.requests) == 2


def test_a_job_whose_message_is_a_dead_letter_is_run_all_the_same(product: Product, hosted: HostedQueue) -> None:
    with hosted.without_a_worker():
        job_id = queue_job(product, "its message died")
        hosted.take_and_die()
    assert json.loads(hosted.dead_letter())["id"] == job_id
    date_back(product, job_id, "due_at")
    sweep(product)
    assert product.ended("its message died")["state"] == "Completed"


def test_a_job_whose_message_is_a_dead_letter_still_ends_by_its_deadline(product: Product, hosted: HostedQueue) -> None:
    with hosted.without_a_worker():
        job_id = queue_job(product, "nobody ran it")
        hosted.take_and_die()
    assert json.loads(hosted.dead_letter())["id"] == job_id
    date_back(product, job_id, "due_at", "deadline")
    sweep(product)
    job = product.ended("nobody ran it")
    assert (job["state"], job["errorCode"], job["attempts"]) == ("Failed", "Expired", 0)
    assert product.upstream.requests == []
