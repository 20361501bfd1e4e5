"""`make invoke`: runs one function on one event from events/, in the embedded cloud and its real runtime client.

python -m local.invoke chat              events/chat.json, function chat
python -m local.invoke chat.no-key     events/chat.no-key.json, function chat
"""

import json
import os
import sys
from pathlib import Path
from typing import Any, cast

from local.choose_upstream import choose
from local.cloud import Cloud
from local.ministack import CloudFailed
from local.runtime_api import FunctionFailed
from local.seed import SeedKeys
from local.signals import Interrupted, install_handlers
from local.streamed_response import HEAD_TERMINATOR
from local.template import REPOSITORY

EVENTS = REPOSITORY / "events"
EXAMPLE_KEY_ID = "example00000"  # of the key in the event files


class InvalidEvent(Exception):
    """The command's arguments or the event file are invalid; printed as one line."""


def main(arguments: list[str]) -> int:
    install_handlers()
    try:
        name, event = read_event(arguments)
        with choose(os.environ) as upstream, Cloud(upstream) as cloud:
            print(upstream.description, file=sys.stderr)
            if name not in cloud.function_names:
                raise InvalidEvent(f"Unknown function {name!r}; choose one of {', '.join(cloud.function_names)}")
            event = insert_key(event, cloud.keys)
            response = decode_response(cloud.invoke(name, json.dumps(event).encode()))
            print(json.dumps(response, indent=2, ensure_ascii=False))
    except (InvalidEvent, CloudFailed, FunctionFailed) as failure:
        print(f"invoke: {failure}", file=sys.stderr)
        return 1
    except Interrupted as interrupted:
        return interrupted.exit_status
    return 0


def decode_response(response: bytes) -> Any:
    """The response of a function; of a streamed one, its head with the complete body as a field."""
    head, terminator, body = response.partition(HEAD_TERMINATOR)
    return {**json.loads(head), "body": body.decode(errors="replace")} if terminator else json.loads(response)


def read_event(arguments: list[str], events: Path = EVENTS) -> tuple[str, dict[str, Any]]:
    """The function's name, which is the event's name up to the first dot, and the event. Raises: InvalidEvent."""
    event_names = sorted(path.stem for path in events.glob("*.json"))
    if len(arguments) != 1 or arguments[0] not in event_names:
        raise InvalidEvent(f"Choose one event of {events}: {', '.join(event_names) or 'the folder is empty'}")
    try:
        event: Any = json.loads((events / f"{arguments[0]}.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidEvent(f"{arguments[0]}.json is not valid JSON: {error}") from error
    if not isinstance(event, dict):
        raise InvalidEvent(f"{arguments[0]}.json must contain a JSON object")
    return arguments[0].partition(".")[0], cast(dict[str, Any], event)


def insert_key(event: dict[str, Any], keys: SeedKeys) -> dict[str, Any]:
    """The event with a valid API key and its id instead of the example's: keys are created at every start."""
    event = json.loads(json.dumps(event).replace(EXAMPLE_KEY_ID, keys.key_id))
    bearer = f"Bearer {keys.api_key}"
    for member, value in (("headers", bearer), ("multiValueHeaders", [bearer])):
        headers: dict[str, Any] = event.get(member) or {}
        for name in headers:
            if name.lower() == "authorization":
                headers[name] = value
    return event


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
