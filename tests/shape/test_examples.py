"""The examples of docs/examples: they fit the product, and docs/events.md shows what they hold."""

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
PLACE = re.compile(r"<(\w+)>")
TRICKY = 'Say "please",\nthen {{ go }} \\ é'


def of_type(kind: str) -> Iterator[dict[str, Any]]:
    for example in EXAMPLES.values():
        yield from (one["Properties"] for one in example["Resources"].values() if one["Type"] == kind)


TRANSFORMERS = [
    target["InputTransformer"]
    for rule in of_type("AWS::Events::Rule")
    for target in rule["Targets"]
    if "InputTransformer" in target
]


def transformed(transformer: Mapping[str, Any], values: Mapping[str, Any], parameters: Mapping[str, str]) -> str:
    """What EventBridge makes of the template: a variable's text within quotes, its JSON elsewhere.

    Source: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-transform-target-input.html
    """
    assert set(values) == set(transformer["InputPathsMap"])
    template = transformer["InputTemplate"]["Fn::Sub"]
    template = stack.SUBSTITUTED.sub(lambda found: parameters[found[1]], template)

    def put(found: re.Match[str]) -> str:
        if found[0].startswith("<"):
            return json.dumps(values[found[0][1:-1]])
        return PLACE.sub(lambda place: values[place[1]], found[0])

    return TOKEN.sub(put, template)


@pytest.mark.parametrize("transformer", TRANSFORMERS, ids=lambda one: next(reversed(one["InputPathsMap"])))
def test_an_event_worded_as_the_example_says_is_a_request_whatever_it_holds(transformer: dict[str, Any]) -> None:
    values = dict.fromkeys(transformer["InputPathsMap"], TRICKY) | {"event": "53dc4d37-cffa-4f76-80c9-8b7d4a4d2eaa"}
    bound = requests.bind_intake_message(
        transformed(transformer, values, {"KeyId": "example00000", "Model": "llama3:8b"}), None
    )
    assert (bound.key_id, bound.request.model) == ("example00000", "llama3:8b")
    assert bound.request.options.ref_id == values["event"]
    assert json.loads(bound.request.body)["messages"][-1] == {"role": "user", "content": TRICKY}


def test_an_event_s_own_id_is_the_ref_id_so_that_one_delivered_twice_is_one_job() -> None:
    assert TRANSFORMERS
    for transformer in TRANSFORMERS:
        assert transformer["InputPathsMap"]["event"] == "$.id"


def test_the_rule_on_our_bus_matches_what_we_publish() -> None:
    (rule,) = [one for one in of_type("AWS::Events::Rule") if "EventBusName" in one]
    assert rule["EventBusName"] == {"Ref": "EventBusName"}
    for told in OUT:
        assert told["source"] in rule["EventPattern"]["source"]
        assert told["detail-type"] in rule["EventPattern"]["detail-type"]
        assert set(rule["EventPattern"]["detail"]) <= set(told["detail"])


def test_examples_ask_for_outputs_the_stack_has() -> None:
    asked = {name for example in EXAMPLES.values() for name in example["Parameters"]}
    own = {"Tag", "KeyId", "Model", "UploadsBucket", "InstanceId", "IdleMinutes"}
    assert asked - own <= set(TEMPLATE.transformed["Outputs"])


def test_only_the_example_s_own_rules_may_send_to_its_queue() -> None:
    given = [one for one in EXAMPLES.values() if "AWS::SQS::QueuePolicy" in str(one["Resources"])]
    assert len(given) == 2
    for example in given:
        rules = {name for name, one in example["Resources"].items() if one["Type"] == "AWS::Events::Rule"}
        (policy,) = [one for one in example["Resources"].values() if one["Type"] == "AWS::SQS::QueuePolicy"]
        (statement,) = policy["Properties"]["PolicyDocument"]["Statement"]
        assert statement["Action"] == "sqs:SendMessage"
        assert {name for name, _ in stack.references(statement["Condition"])} == rules


def test_the_page_shows_the_examples_as_they_are() -> None:
    files = [path.read_text() for path in (REPOSITORY / "docs" / "examples").glob("*.yaml")]
    shown = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert shown
    for block in shown:
        assert any(block in text for text in files), block


def test_the_page_s_messages_and_events_are_such_as_we_take_and_tell() -> None:
    message, event = (yaml.safe_load(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL))
    assert requests.bind_intake_message(json.dumps(message), None).key_id == "example00000"
    assert event in OUT
