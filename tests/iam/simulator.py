"""Decides IAM requests by @cloud-copilot/iam-simulate, in a separate Node.js process."""

import atexit
import json
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from tests.iam.policies import ACCOUNT, bucket_policy, policies_of
from tests.iam.requests import IamRequest

FOLDER = Path(__file__).parent
IS_INSTALLED = (FOLDER / "node_modules" / ".installed").exists()


@cache
def is_allowed(function: str, request: IamRequest) -> bool:
    """Return whether the function's role allows the request. Raises: ValueError, for a request unknown to IAM."""
    simulation: dict[str, Any] = {
        "request": {
            "principal": f"arn:aws:iam::{ACCOUNT}:role/{function}",
            "action": request.action,
            "resource": {"resource": request.resource, "accountId": ACCOUNT},
            "contextVariables": {name: _value(name, values) for name, values in request.context},
        },
        "identityPolicies": [
            {"name": f"policy-{i}", "policy": document} for i, document in enumerate(policies_of(function))
        ],
        "serviceControlPolicies": [],
        "resourceControlPolicies": [],
        "resourcePolicy": bucket_policy() if request.action.startswith("s3:") else None,
    }
    process = _process()
    assert process.stdin
    assert process.stdout
    process.stdin.write(json.dumps(simulation) + "\n")
    process.stdin.flush()
    response = json.loads(process.stdout.readline())
    if "errors" in response:
        raise ValueError(f"{function}, {request}: {response['errors']}")
    return response["result"] == "Allowed"


def requests_denied(function: str, requests: Iterable[IamRequest]) -> list[IamRequest]:
    return [request for request in requests if not is_allowed(function, request)]


def _value(name: str, values: tuple[str, ...]) -> str | list[str]:
    return list(values) if name.startswith("dynamodb:") else values[0]


@cache
def _process() -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        ["node", str(FOLDER / "simulate.mjs")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    atexit.register(process.communicate)  # it exits at the end of its input
    return process
