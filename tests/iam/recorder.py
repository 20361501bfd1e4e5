"""Notes every boto3 call that a handler makes in this process, as what IAM would be asked for it.

A link that a handler signs counts as the call that its receiver makes: S3 judges it by the signer's role.
"""

import contextlib
import threading
from collections.abc import Generator, Mapping
from typing import Any

from botocore import signers
from botocore.client import BaseClient

from tests.iam.requests import IamRequest, requests_of

MISSING = "no-such-"  # in the names of what a test has a handler look for in vain
recorded: set[tuple[str, IamRequest]] = set()
errors: list[str] = []  # calls that could not be translated: a handler may catch what is raised
# The functions that are running now, since a test may let one interrupt another, and the threads that are not theirs.
_running: list[tuple[str | None, frozenset[int | None]]] = []
_call, _sign = BaseClient._make_api_call, signers.generate_presigned_url  # pyright: ignore


def install() -> None:
    """Have the calls of all clients noted, and the links of those that are made from now on."""
    BaseClient._make_api_call = _noted_call  # pyright: ignore
    signers.generate_presigned_url = _noted_link


@contextlib.contextmanager
def running(function: str | None) -> Generator[None]:
    """The calls made meanwhile, by this thread or new ones, are those of this function (a logical id; None: nobody).

    Threads that run already are others': a local cloud of this process polls its queues and streams.
    """
    others = frozenset(thread.ident for thread in threading.enumerate()) - {threading.get_ident()}
    _running.append((function, others))
    try:
        yield
    finally:
        _running.pop()


def _noted_call(client: Any, operation: str, params: Mapping[str, Any]) -> Any:
    _note(client, operation, params)
    return _call(client, operation, params)


def _noted_link(client: Any, ClientMethod: str, Params: Mapping[str, Any], **more: Any) -> Any:  # noqa: N803  boto3's
    _note(client, client.meta.method_to_api_mapping[ClientMethod], Params)
    return _sign(client, ClientMethod, Params, **more)


def _note(client: Any, operation: str, params: Mapping[str, Any]) -> None:
    function, others = _running[-1] if _running else (None, frozenset[int | None]())
    if function and threading.get_ident() not in others and MISSING not in str(params):
        service = client.meta.service_model.service_name
        try:
            recorded.update((function, request) for request in requests_of(service, operation, params))
        except (KeyError, ValueError) as error:
            errors.append(f"{function}, {service}, {operation}: {error!r}")
