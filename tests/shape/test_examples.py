"""The examples of docs/examples: they match the gateway, and docs/events.md quotes them."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml

from aiserver.wire import requests
from local.template import REPOSITORY, read_yaml
from tests import stack
from tests.stack import TEMPLATE

EXAMPLES = {path.stem: read_yaml(path) for path in sorted((REPOSITORY / "docs" / "examples").glob("*.yaml"))}
PAGE = (REPOSITORY / "docs" / "events.md").read_text()
OUT = [json.loads(path.read_text()) for path in (REPOSITORY / "events" / "out").glob("*.json")]
TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|<\w+>')
PLACEHOLDER = re.compile(r"<(\w+)>")
TRICKY = 'Say "please",\nthen {{ go }} \\ é'


def of_type(kind: str) -> Iterator[dict[str, Any]]:
    for example in EXAMPLES.values():
        yield from (resource["Properties"] for resource in example["Resources"].values() if resource["Type"] == kind)


TRANSFORMERS = [
    target["InputTransformer"]
    for rule in of_type("AWS::Events::Rule")
    for target in rule["Targets"]
    if "InputTransformer" in target
]


def transform_input(transformer: Mapping[str, Any], values: Mapping[str, Any], parameters: Mapping[str, str]) -> str:
    """Return the message that EventBridge makes of the template: a variable is text within quotes, JSON elsewhere.

    Source: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-transform-target-input.html
    """
    assert set(values) == set(transformer["InputPathsMap"])
    template = transformer["InputTemplate"]["Fn::Sub"]
    template = stack.SUBSTITUTION.sub(lambda match: parameters[match[1]], template)

    def substitute(match: re.Match[str]) -> str:
        if match[0].startswith("<"):
            return json.dumps(values[match[0][1:-1]])
        return PLACEHOLDER.sub(lambda placeholder: values[placeholder[1]], match[0])

    return TOKEN.sub(substitute, template)


@pytest.mark.parametrize(
    "transformer", TRANSFORMERS, ids=lambda transformer: next(reversed(transformer["InputPathsMap"]))
)
def test_input_transformer_of_an_example_produces_a_valid_request(transformer: dict[str, Any]) -> None:
    values = dict.fromkeys(transformer["InputPathsMap"], TRICKY) | {"event": "53dc4d37-cffa-4f76-80c9-8b7d4a4d2eaa"}
    message = requests.bind_intake_message(
        transform_input(transformer, values, {"KeyId": "example00000", "Model": "llama3:8b"}), None
    )
    assert (message.key_id, message.request.model) == ("example00000", "llama3:8b")
    assert message.request.options.ref_id == values["event"]
    assert json.loads(message.request.body)["messages"][-1] == {"role": "user", "content": TRICKY}


def test_event_id_is_the_ref_id_so_that_duplicates_are_one_job() -> None:
    assert TRANSFORMERS
    for transformer in TRANSFORMERS:
        assert transformer["InputPathsMap"]["event"] == "$.id"


def test_rule_of_an_example_matches_the_published_events() -> None:
    (rule,) = [rule for rule in of_type("AWS::Events::Rule") if "EventBusName" in rule]
    assert rule["EventBusName"] == {"Ref": "EventBusName"}
    for event in OUT:
        assert event["source"] in rule["EventPattern"]["source"]
        assert event["detail-type"] in rule["EventPattern"]["detail-type"]
        assert set(rule["EventPattern"]["detail"]) <= set(event["detail"])


def test_example_parameters_are_outputs_of_the_stack() -> None:
    parameters = {name for example in EXAMPLES.values() for name in example["Parameters"]}
    user_parameters = {"Tag", "KeyId", "Model", "UploadsBucket", "InstanceId", "IdleMinutes"}
    assert parameters - user_parameters <= set(TEMPLATE.transformed["Outputs"])


def test_only_the_rules_of_an_example_may_send_to_its_queue() -> None:
    examples = [example for example in EXAMPLES.values() if "AWS::SQS::QueuePolicy" in str(example["Resources"])]
    assert len(examples) == 2
    for example in examples:
        resources = example["Resources"]
        rules = {name for name, resource in resources.items() if resource["Type"] == "AWS::Events::Rule"}
        (policy,) = [resource for resource in resources.values() if resource["Type"] == "AWS::SQS::QueuePolicy"]
        (statement,) = policy["Properties"]["PolicyDocument"]["Statement"]
        assert statement["Action"] == "sqs:SendMessage"
        assert {name for name, _ in stack.references(statement["Condition"])} == rules


def test_page_quotes_the_examples_verbatim() -> None:
    files = [path.read_text() for path in (REPOSITORY / "docs" / "examples").glob("*.yaml")]
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert blocks
    for block in blocks:
        assert any(block in text for text in files), block


def test_messages_and_events_of_the_page_are_valid() -> None:
    message, event = (yaml.safe_load(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL))
    assert requests.bind_intake_message(json.dumps(message), None).key_id == "example00000"
    assert event in OUT
