"""Runs one function on one event from events/, in the embedded cloud and its real runtime client.

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
from local.seed import Seeded
from local.signals import Interrupted, install_handlers
from local.streamed_response import HEAD_ENDS
from local.template import REPOSITORY

EVENTS = REPOSITORY / "events"
EXAMPLE_KEY_ID = "example00000"  # of the key in the event files


class InvalidEvent(Exception):
    """What the caller must put right; shown as one line."""


def main(arguments: list[str]) -> int:
    install_handlers()
    try:
        name, event = read_event(arguments)
        with choose(os.environ) as upstream, Cloud(upstream) as cloud:
            print(upstream.sentence, file=sys.stderr)
            if name not in cloud.function_names:
                raise InvalidEvent(f"there is no function {name}, only {', '.join(cloud.function_names)}")
            event = with_key(event, cloud.seeded)
            answer = display_value(cloud.invoke(name, json.dumps(event).encode()))
            print(json.dumps(answer, indent=2, ensure_ascii=False))
    except (InvalidEvent, CloudFailed, FunctionFailed) as failed:
        print(f"invoke: {failed}", file=sys.stderr)
        return 1
    except Interrupted as interrupted:
        return interrupted.exit_status
    return 0


def display_value(answer: bytes) -> Any:
    """What a function answered; of one that streams, its head with all of the body in it."""
    head, end, body = answer.partition(HEAD_ENDS)
    return {**json.loads(head), "body": body.decode(errors="replace")} if end else json.loads(answer)


def read_event(arguments: list[str], events: Path = EVENTS) -> tuple[str, dict[str, Any]]:
    """The function's name, which is the event's up to its first dot, and the event. Raises: WrongEvent."""
    known = sorted(path.stem for path in events.glob("*.json"))
    if len(arguments) != 1 or arguments[0] not in known:
        raise InvalidEvent(f"name one event of {events}: {', '.join(known) or 'there is none yet'}")
    try:
        event: Any = json.loads((events / f"{arguments[0]}.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidEvent(f"{arguments[0]}.json is not JSON: {error}") from error
    if not isinstance(event, dict):
        raise InvalidEvent(f"{arguments[0]}.json is not an object")
    return arguments[0].partition(".")[0], cast(dict[str, Any], event)


def with_key(event: dict[str, Any], seeded: Seeded) -> dict[str, Any]:
    """The event with a key that works, and its id, in place of the example's: keys are made anew at every boot."""
    event = json.loads(json.dumps(event).replace(EXAMPLE_KEY_ID, seeded.key_id))
    bearer = f"Bearer {seeded.api_key}"
    for member, value in (("headers", bearer), ("multiValueHeaders", [bearer])):
        headers: dict[str, Any] = event.get(member) or {}
        for name in headers:
            if name.lower() == "authorization":
                headers[name] = value
    return event


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
