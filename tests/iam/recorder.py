"""Records every boto3 call that a handler makes in this process as IAM requests.

A presigned URL counts as the call of its user: S3 evaluates it against the signer's role.
"""

import contextlib
import threading
from collections.abc import Generator, Mapping
from typing import Any

from botocore import signers
from botocore.client import BaseClient

from tests.iam.requests import IamRequest, requests_of

MISSING = "no-such-"  # part of the names of resources that do not exist on purpose
recorded: set[tuple[str, IamRequest]] = set()
errors: list[str] = []  # calls that could not be mapped; a handler could catch an exception
# The running functions (a test may interrupt one by another) and the threads that do not belong to them.
_running: list[tuple[str | None, frozenset[int | None]]] = []
_call, _sign = BaseClient._make_api_call, signers.generate_presigned_url  # pyright: ignore


def install() -> None:
    """Record the calls of all clients, and the presigned URLs of clients created from now on."""
    BaseClient._make_api_call = _record_call  # pyright: ignore
    signers.generate_presigned_url = _record_presigned_url


@contextlib.contextmanager
def running(function: str | None) -> Generator[None]:
    """Attribute the calls of this thread and of new ones to this function (a logical id; None: to none).

    Existing threads are excluded: a local cloud in this process polls its queues and streams.
    """
    excluded_threads = frozenset(thread.ident for thread in threading.enumerate()) - {threading.get_ident()}
    _running.append((function, excluded_threads))
    try:
        yield
    finally:
        _running.pop()


def _record_call(client: Any, operation: str, params: Mapping[str, Any]) -> Any:
    _record(client, operation, params)
    return _call(client, operation, params)


def _record_presigned_url(client: Any, ClientMethod: str, Params: Mapping[str, Any], **options: Any) -> Any:  # noqa: N803  boto3's names
    _record(client, client.meta.method_to_api_mapping[ClientMethod], Params)
    return _sign(client, ClientMethod, Params, **options)


def _record(client: Any, operation: str, params: Mapping[str, Any]) -> None:
    function, excluded_threads = _running[-1] if _running else (None, frozenset[int | None]())
    if function and threading.get_ident() not in excluded_threads and MISSING not in str(params):
        service = client.meta.service_model.service_name
        try:
            recorded.update((function, request) for request in requests_of(service, operation, params))
        except (KeyError, ValueError) as error:
            errors.append(f"{function}, {service}, {operation}: {error!r}")
