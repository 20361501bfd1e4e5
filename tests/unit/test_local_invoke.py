"""`make invoke` sends an event file with the API key of the stack that it just started."""

import json

import pytest

from local.invoke import EXAMPLE_KEY_ID, decode_response, insert_key
from local.seed import new_keys
from tests.moto_stack import event, example_key


@pytest.mark.parametrize("name", ["chat", "queue", "intake", "finished", "sweep"])
def test_only_the_api_key_and_its_id_are_replaced_in_an_event(name: str) -> None:
    keys = new_keys()
    before = json.dumps(event(name))
    after = json.dumps(insert_key(event(name), keys))
    assert after == before.replace(example_key(), keys.api_key).replace(EXAMPLE_KEY_ID, keys.key_id)
    assert EXAMPLE_KEY_ID not in after


def test_two_owners_get_different_keys_and_secrets() -> None:
    keys = new_keys()
    assert keys.api_key.startswith(f"ak-{keys.key_id}")
    assert keys.other_api_key != keys.api_key
    assert keys.second.secrets.current != keys.webhook_secret


def test_streamed_response_is_shown_as_one_object() -> None:
    assert decode_response(b'{"statusCode": 200}' + bytes(8) + b"data: 1\n\n") == {
        "statusCode": 200,
        "body": "data: 1\n\n",
    }
    assert decode_response(b'{"statusCode": 204, "body": ""}') == {"statusCode": 204, "body": ""}
