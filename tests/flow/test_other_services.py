"""Other AWS services as our callers and listeners: messages and events in, events out, as the docs' examples wire them.

The two stacks of docs/examples are deployed beside the product as their readers would.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from local import aws
from local.template import REPOSITORY
from tests.flow.conftest import Product

EXAMPLES = REPOSITORY / "docs" / "examples"
TAG = "tickets"
PROMPT = "My parcel has not arrived"
CHAT = {"model": "llama3:8b", "messages": [{"role": "user", "content": PROMPT}]}
WAIT_S = 20  # SQS's longest; it answers as soon as there is a message


class Neighbour:
    """What stands beside the product in its account."""

    def __init__(self, product: Product) -> None:
        self._product = product
        self.sqs, self.events = (aws.client(service, product.cloud.endpoint_url) for service in ("sqs", "events"))

    def deploy(self, name: str, **parameters: str) -> dict[str, str]:
        """The outputs of docs/examples/{name}.yaml as a stack of its own."""
        cloudformation = aws.client("cloudformation", self._product.cloud.endpoint_url)
        given = [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()]
        text = (EXAMPLES / f"{name}.yaml").read_text()
        cloudformation.create_stack(StackName=name, TemplateBody=text, Parameters=given)
        cloudformation.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig={"Delay": 1})
        (stack,) = cloudformation.describe_stacks(StackName=name)["Stacks"]
        return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}

    def send(self, body: dict[str, Any], **attributes: str) -> str:
        """The id of a message to the intake queue."""
        told = {name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()}
        url = self._product.cloud.outputs["IntakeQueueUrl"]
        sent = self.sqs.send_message(QueueUrl=url, MessageBody=json.dumps(body), MessageAttributes=told)
        return sent["MessageId"]

    def take(self, url: str) -> dict[str, Any]:
        """The next message of a queue."""
        everything = {"MessageAttributeNames": ["All"], "WaitTimeSeconds": WAIT_S}
        (message,) = self.sqs.receive_message(QueueUrl=url, **everything)["Messages"]
        self.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return message


@pytest.fixture(scope="module")
def outputs(started: Product) -> dict[str, str]:
    neighbour, cloud = Neighbour(started), started.cloud
    neighbour.deploy(
        "events-to-jobs",
        IntakeQueueUrl=cloud.outputs["IntakeQueueUrl"],
        IntakeQueueArn=cloud.outputs["IntakeQueueArn"],
        KeyId=cloud.seeded.key_id,
        UploadsBucket="uploads",
    )
    return neighbour.deploy("jobs-to-a-queue", EventBusName=cloud.outputs["EventBusName"], Tag=TAG)


@pytest.fixture
def neighbour(product: Product) -> Iterator[Neighbour]:
    made = Neighbour(product)
    yield made
    url = product.cloud.outputs["IntakeDeadLetterQueueUrl"]
    assert "Messages" not in made.sqs.receive_message(QueueUrl=url), "a message was refused that no test looked for"


def heard(neighbour: Neighbour, outputs: dict[str, str]) -> dict[str, Any]:
    """The next event of our rule, which holds nothing of what was asked and answered."""
    text = neighbour.take(outputs["QueueUrl"])["Body"]
    assert PROMPT not in text
    assert "scripted answer" not in text
    return json.loads(text)


def test_a_rule_hears_that_a_job_completed(product: Product, neighbour: Neighbour, outputs: dict[str, str]) -> None:
    ask = {"refId": "heard", "tag": TAG, "request": CHAT}
    queued = product.http.post("/api/QueueOpenAiChatCompletion", json=ask).json()
    told = heard(neighbour, outputs)
    example = json.loads((REPOSITORY / "events" / "out" / "JobCompleted.json").read_text())
    assert (told["source"], told["detail-type"]) == (example["source"], example["detail-type"])
    assert set(told["detail"]) == set(example["detail"])
    status = product.http.get(queued["statusUrl"]).json()
    same = ("refId", "tag", "attempts", "createdDate", "startedDate", "completedDate", "duration", "provider", "usage")
    assert {name: told["detail"][name] for name in same} == {name: status[name] for name in same}
    assert (told["detail"]["id"], told["detail"]["keyId"]) == (queued["id"], product.cloud.seeded.key_id)


def test_a_rule_hears_that_a_job_failed_and_not_in_the_provider_s_words(
    product: Product, neighbour: Neighbour, outputs: dict[str, str]
) -> None:
    product.upstream.answer_with(400, json.dumps({"error": {"message": f"cannot answer {PROMPT}"}}).encode())
    product.http.post("/api/QueueOpenAiChatCompletion", json={"refId": "failed", "tag": TAG, "request": CHAT})
    told = heard(neighbour, outputs)
    assert told["detail-type"] == "JobFailed"
    assert (told["detail"]["refId"], told["detail"]["errorCode"]) == ("failed", "ProviderRejected")


def test_a_message_becomes_a_job_whose_end_is_an_event(
    product: Product, neighbour: Neighbour, outputs: dict[str, str]
) -> None:
    message_id = neighbour.send({"keyId": product.cloud.seeded.key_id, "tag": TAG, "request": CHAT})
    assert heard(neighbour, outputs)["detail"]["refId"] == message_id
    assert json.loads(product.upstream.requests[0].body) == CHAT
    status = product.http.get("/api/GetOpenAiChatStatus", params={"refId": message_id}).json()
    assert status["jobState"] == "Completed"
    assert status["resultUrl"].startswith(product.url)


def test_a_message_may_name_its_key_in_an_attribute(
    product: Product, neighbour: Neighbour, outputs: dict[str, str]
) -> None:
    neighbour.send({"refId": "by attribute", "tag": TAG, "request": CHAT}, keyId=product.cloud.seeded.key_id)
    assert heard(neighbour, outputs)["detail"]["refId"] == "by attribute"


def test_a_message_that_can_be_no_job_is_a_dead_letter_that_says_why(product: Product, neighbour: Neighbour) -> None:
    ask = {"keyId": product.cloud.seeded.key_id, "request": CHAT | {"model": "nobody"}}
    message_id = neighbour.send(ask)
    refused = neighbour.take(product.cloud.outputs["IntakeDeadLetterQueueUrl"])
    assert json.loads(refused["Body"]) == ask
    told = {name: one["StringValue"] for name, one in refused["MessageAttributes"].items()}
    assert told == {"errorCode": "NotFound", "reason": "Model nobody not found", "messageId": message_id}


def test_an_event_of_another_service_becomes_a_job(
    product: Product, neighbour: Neighbour, outputs: dict[str, str]
) -> None:
    parts = [{"type": "text", "text": PROMPT}]  # a list: MiniStack forgets a bare text's quotes, which AWS adds
    entry = {"Source": "my.shop", "DetailType": "TicketOpened", "Detail": json.dumps({"text": parts})}
    put = neighbour.events.put_events(Entries=[entry])["Entries"][0]
    assert heard(neighbour, outputs)["detail"]["refId"] == put["EventId"]
    (asked,) = product.upstream.requests
    assert json.loads(asked.body)["messages"][1] == {"role": "user", "content": parts}
