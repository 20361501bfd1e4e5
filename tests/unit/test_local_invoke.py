"""`make invoke` sends an event file as it is, but with the key of the stack that was just booted."""

import json

import pytest

from local.invoke import EXAMPLE_KEY_ID, display_value, with_key
from local.seed import new_keys
from tests.moto_stack import event, example_key


@pytest.mark.parametrize("name", ["chat", "queue", "intake", "finished", "sweep"])
def test_an_event_gets_the_new_key_and_its_id_and_is_else_the_same(name: str) -> None:
    seeded = new_keys()
    before = json.dumps(event(name))
    after = json.dumps(with_key(event(name), seeded))
    assert after == before.replace(example_key(), seeded.api_key).replace(EXAMPLE_KEY_ID, seeded.key_id)
    assert EXAMPLE_KEY_ID not in after


def test_two_owners_get_keys_of_their_own() -> None:
    seeded = new_keys()
    assert seeded.api_key.startswith(f"ak-{seeded.key_id}")
    assert seeded.other_api_key != seeded.api_key
    assert seeded.second.secrets.current != seeded.webhook_secret


def test_what_a_function_streamed_is_shown_as_one_answer() -> None:
    assert display_value(b'{"statusCode": 200}' + bytes(8) + b"data: 1\n\n") == {
        "statusCode": 200,
        "body": "data: 1\n\n",
    }
    assert display_value(b'{"statusCode": 204, "body": ""}') == {"statusCode": 204, "body": ""}
