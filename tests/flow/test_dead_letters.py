"""A message that no worker can handle becomes a dead letter; the jobs around it and its own job finish."""

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager

import pytest

from local import aws
from tests.flow.conftest import Product

CHAT = {"model": "llama3:8b", "messages": [{"role": "user", "content": "hi"}]}
POISON = '{"id": "not a job"}'
WAIT_S = 20  # the maximum of SQS; it returns as soon as there is a message


class HostedQueue:
    """The job queue of the running gateway, with a configurable visibility timeout in place of 90 minutes."""

    def __init__(self, product: Product) -> None:
        self._cloud = product.cloud
        self._sqs = aws.client("sqs", product.cloud.endpoint_url)
        self.url = product.cloud.outputs["HostedQueueUrl"]
        attributes = self._sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=["All"])["Attributes"]
        self.visibility, self._redrive = attributes["VisibilityTimeout"], json.loads(attributes["RedrivePolicy"])
        self._arn = attributes["QueueArn"]
        name = self._redrive["deadLetterTargetArn"].rpartition(":")[2]
        self._dead = self._sqs.get_queue_url(QueueName=name)["QueueUrl"]

    def set_visibility_timeout(self, seconds: str) -> None:
        self._sqs.set_queue_attributes(QueueUrl=self.url, Attributes={"VisibilityTimeout": seconds})

    def pause_worker(self) -> AbstractContextManager[None]:
        """Messages sent during the pause are one batch afterwards."""
        return self._cloud.pause(self._arn)

    def send(self, body: str) -> None:
        self._sqs.send_message(QueueUrl=self.url, MessageBody=body)

    def receive_without_deleting(self) -> None:
        """Receive each message as often as the redrive policy allows, like a worker that dies each time."""
        for _ in range(int(self._redrive["maxReceiveCount"]) + 1):
            self._sqs.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10, VisibilityTimeout=0)

    def dead_letter(self) -> str:
        (message,) = self._sqs.receive_message(QueueUrl=self._dead, WaitTimeSeconds=WAIT_S)["Messages"]
        self._sqs.delete_message(QueueUrl=self._dead, ReceiptHandle=message["ReceiptHandle"])
        return message["Body"]


@pytest.fixture
def hosted(product: Product) -> Iterator[HostedQueue]:
    queue = HostedQueue(product)
    queue.set_visibility_timeout("1")
    yield queue
    queue.set_visibility_timeout(queue.visibility)


def queue_job(product: Product, ref_id: str) -> int:
    body = {"refId": ref_id, "request": CHAT}
    return product.http.post("/api/QueueOpenAiChatCompletion", json=body).json()["id"]


def move_to_the_past(product: Product, job_id: int, *names: str) -> None:
    """Set these time attributes of a job to the past."""
    aws.client("dynamodb", product.cloud.endpoint_url).update_item(
        TableName=product.cloud.outputs["JobsTable"],
        Key={"pk": {"S": f"JOB#{job_id}"}, "sk": {"S": "JOB"}},
        UpdateExpression="SET " + ", ".join(f"{name} = :past" for name in names),
        ExpressionAttributeValues={":past": {"N": "1"}},
    )


def sweep(product: Product) -> None:
    product.cloud.invoke("sweep", b"{}")


def test_malformed_message_is_a_dead_letter_and_its_batch_finishes(product: Product, hosted: HostedQueue) -> None:
    with hosted.pause_worker():
        queue_job(product, "beside poison 1")
        hosted.send(POISON)
        queue_job(product, "beside poison 2")
    for ref_id in ("beside poison 1", "beside poison 2"):
        job = product.wait_for_job(ref_id)
        assert (job["state"], job["attempts"]) == ("Completed", 1)
    assert hosted.dead_letter() == POISON
    assert len(product.upstream.requests) == 2


def test_job_whose_message_is_a_dead_letter_is_run(product: Product, hosted: HostedQueue) -> None:
    with hosted.pause_worker():
        job_id = queue_job(product, "its message died")
        hosted.receive_without_deleting()
    assert json.loads(hosted.dead_letter())["id"] == job_id
    move_to_the_past(product, job_id, "due_at")
    sweep(product)
    assert product.wait_for_job("its message died")["state"] == "Completed"


def test_job_whose_message_is_a_dead_letter_expires_at_its_deadline(product: Product, hosted: HostedQueue) -> None:
    with hosted.pause_worker():
        job_id = queue_job(product, "nobody ran it")
        hosted.receive_without_deleting()
    assert json.loads(hosted.dead_letter())["id"] == job_id
    move_to_the_past(product, job_id, "due_at", "deadline")
    sweep(product)
    job = product.wait_for_job("nobody ran it")
    assert (job["state"], job["errorCode"], job["attempts"]) == ("Failed", "Expired", 0)
    assert product.upstream.requests == []
