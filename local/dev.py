"""`make dev`: serves the product on this machine until Ctrl-C."""

import json
import os
import sys
from pathlib import Path

from local.choose_upstream import choose
from local.cloud import Cloud
from local.ministack import CloudFailed
from local.signals import install_handlers, wait_for_signal
from local.template import REPOSITORY

DEFAULT_PORT = "8080"
MAX_PORT = 65_535


def main() -> int:
    install_handlers()
    state_dir = os.environ.get("STATE_DIR")
    try:
        with (
            choose(os.environ) as upstream,
            Cloud(
                upstream,
                port=_port(os.environ.get("PORT", DEFAULT_PORT)),
                strict_callbacks=os.environ.get("STRICT_CALLBACKS") == "1",
                state_dir=Path(state_dir).resolve() if state_dir else None,
            ) as cloud,
        ):
            connection_file = REPOSITORY / ".local" / f"dev-{cloud.port}.json"
            _write(connection_file, cloud)
            try:
                if os.environ.get("QUIET") != "1":
                    print(upstream.description)
                print(f"READY {cloud.base_url}", flush=True)
                wait_for_signal()
            finally:
                connection_file.unlink(missing_ok=True)
    except CloudFailed as failure:
        print(f"dev: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    return 0


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > MAX_PORT:
        raise CloudFailed(f"PORT must be a number up to {MAX_PORT}, not {text!r}")
    return int(text)


def _write(file: Path, cloud: Cloud) -> None:
    connection = {
        "base_url": cloud.base_url,
        "api_key": cloud.keys.api_key,
        "other_api_key": cloud.keys.other_api_key,
        "webhook_secret": cloud.keys.webhook_secret,
        "key_id": cloud.keys.key_id,
        "intake_queue_url": cloud.outputs["IntakeQueueUrl"],
        "intake_dead_letter_queue_url": cloud.outputs["IntakeDeadLetterQueueUrl"],
        "event_bus": cloud.outputs["EventBusName"],
        "pid": os.getpid(),
        "aws_endpoint_url": cloud.endpoint_url,
    }
    file.unlink(missing_ok=True)  # a killed run may have left one with other permissions
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as output:
        json.dump(connection, output, indent=2)


if __name__ == "__main__":
    sys.exit(main())
