"""Other AWS services as callers and listeners: messages and events in, events out, as in the examples of the docs.

The two stacks of docs/examples are deployed beside the gateway, as their readers would deploy them.
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
WAIT_S = 20  # the maximum of SQS; it returns as soon as there is a message


class OtherServices:
    """Other AWS services in the account of the gateway."""

    def __init__(self, product: Product) -> None:
        self._product = product
        self.sqs, self.events = (aws.client(name, product.cloud.endpoint_url) for name in ("sqs", "events"))

    def deploy(self, name: str, **parameters: str) -> dict[str, str]:
        """Deploy docs/examples/{name}.yaml as a separate stack; return its outputs."""
        cloudformation = aws.client("cloudformation", self._product.cloud.endpoint_url)
        stack_parameters = [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()]
        text = (EXAMPLES / f"{name}.yaml").read_text()
        cloudformation.create_stack(StackName=name, TemplateBody=text, Parameters=stack_parameters)
        cloudformation.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig={"Delay": 1})
        (stack,) = cloudformation.describe_stacks(StackName=name)["Stacks"]
        return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}

    def send(self, body: dict[str, Any], **attributes: str) -> str:
        """Send a message to the intake queue; return its id."""
        message_attributes = {name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()}
        url = self._product.cloud.outputs["IntakeQueueUrl"]
        response = self.sqs.send_message(
            QueueUrl=url, MessageBody=json.dumps(body), MessageAttributes=message_attributes
        )
        return response["MessageId"]

    def receive(self, url: str) -> dict[str, Any]:
        """Receive and delete the next message of a queue."""
        options = {"MessageAttributeNames": ["All"], "WaitTimeSeconds": WAIT_S}
        (message,) = self.sqs.receive_message(QueueUrl=url, **options)["Messages"]
        self.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return message


@pytest.fixture(scope="module")
def outputs(running_product: Product) -> dict[str, str]:
    services, cloud = OtherServices(running_product), running_product.cloud
    services.deploy(
        "events-to-jobs",
        IntakeQueueUrl=cloud.outputs["IntakeQueueUrl"],
        IntakeQueueArn=cloud.outputs["IntakeQueueArn"],
        KeyId=cloud.keys.key_id,
        UploadsBucket="uploads",
    )
    return services.deploy("jobs-to-a-queue", EventBusName=cloud.outputs["EventBusName"], Tag=TAG)


@pytest.fixture
def services(product: Product) -> Iterator[OtherServices]:
    other_services = OtherServices(product)
    yield other_services
    url = product.cloud.outputs["IntakeDeadLetterQueueUrl"]
    assert "Messages" not in other_services.sqs.receive_message(QueueUrl=url), "an unexpected message was rejected"


def next_event(services: OtherServices, outputs: dict[str, str]) -> dict[str, Any]:
    """Return the next event of the rule; it contains no text of the request or the response."""
    text = services.receive(outputs["QueueUrl"])["Body"]
    assert PROMPT not in text
    assert "scripted response" not in text
    return json.loads(text)


def test_rule_receives_the_event_of_a_completed_job(
    product: Product, services: OtherServices, outputs: dict[str, str]
) -> None:
    body = {"refId": "heard", "tag": TAG, "request": CHAT}
    queued = product.http.post("/api/QueueOpenAiChatCompletion", json=body).json()
    event = next_event(services, outputs)
    example = json.loads((REPOSITORY / "events" / "out" / "JobCompleted.json").read_text())
    assert (event["source"], event["detail-type"]) == (example["source"], example["detail-type"])
    assert set(event["detail"]) == set(example["detail"])
    status = product.http.get(queued["statusUrl"]).json()
    shared_members = (
        "refId",
        "tag",
        "attempts",
        "createdDate",
        "startedDate",
        "completedDate",
        "duration",
        "provider",
        "usage",
    )
    assert {name: event["detail"][name] for name in shared_members} == {name: status[name] for name in shared_members}
    assert (event["detail"]["id"], event["detail"]["keyId"]) == (queued["id"], product.cloud.keys.key_id)


def test_event_of_a_failed_job_does_not_contain_the_provider_s_message(
    product: Product, services: OtherServices, outputs: dict[str, str]
) -> None:
    product.upstream.respond_with(400, json.dumps({"error": {"message": f"cannot answer {PROMPT}"}}).encode())
    product.http.post("/api/QueueOpenAiChatCompletion", json={"refId": "failed", "tag": TAG, "request": CHAT})
    event = next_event(services, outputs)
    assert event["detail-type"] == "JobFailed"
    assert (event["detail"]["refId"], event["detail"]["errorCode"]) == ("failed", "ProviderRejected")


def test_message_becomes_a_job_that_publishes_an_event(
    product: Product, services: OtherServices, outputs: dict[str, str]
) -> None:
    message_id = services.send({"keyId": product.cloud.keys.key_id, "tag": TAG, "request": CHAT})
    assert next_event(services, outputs)["detail"]["refId"] == message_id
    assert json.loads(product.upstream.requests[0].body) == CHAT
    status = product.http.get("/api/GetOpenAiChatStatus", params={"refId": message_id}).json()
    assert status["jobState"] == "Completed"
    assert status["resultUrl"].startswith(product.url)


def test_message_may_name_its_key_in_an_attribute(
    product: Product, services: OtherServices, outputs: dict[str, str]
) -> None:
    services.send({"refId": "by attribute", "tag": TAG, "request": CHAT}, keyId=product.cloud.keys.key_id)
    assert next_event(services, outputs)["detail"]["refId"] == "by attribute"


def test_invalid_message_is_a_dead_letter_with_a_reason(product: Product, services: OtherServices) -> None:
    body = {"keyId": product.cloud.keys.key_id, "request": CHAT | {"model": "nobody"}}
    message_id = services.send(body)
    dead_letter = services.receive(product.cloud.outputs["IntakeDeadLetterQueueUrl"])
    assert json.loads(dead_letter["Body"]) == body
    attributes = {name: attribute["StringValue"] for name, attribute in dead_letter["MessageAttributes"].items()}
    assert attributes == {"errorCode": "NotFound", "reason": "Model nobody not found", "messageId": message_id}


def test_event_of_another_service_becomes_a_job(
    product: Product, services: OtherServices, outputs: dict[str, str]
) -> None:
    parts = [{"type": "text", "text": PROMPT}]  # a list: MiniStack drops the quotes of a plain text, which AWS adds
    entry = {"Source": "my.shop", "DetailType": "TicketOpened", "Detail": json.dumps({"text": parts})}
    put = services.events.put_events(Entries=[entry])["Entries"][0]
    assert next_event(services, outputs)["detail"]["refId"] == put["EventId"]
    (upstream_request,) = product.upstream.requests
    assert json.loads(upstream_request.body)["messages"][1] == {"role": "user", "content": parts}
