"""What Amazon Bedrock needs beyond HTTP: requests signed for the function's own role, and its frames of events.

Source: https://docs.aws.amazon.com/bedrock/latest/userguide/conversation-inference-call.html
"""

import json
import os
import re
import struct
from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from typing import Any

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.eventstream import EventStreamBuffer, ParserError
from botocore.exceptions import BotoCoreError
from botocore.session import get_session

from aiserver.errors import ProviderAuth, ProviderError, ProviderTimeout
from aiserver.providers.http import ProviderRequest
from aiserver.providers.provider import Provider
from aiserver.wire import sse

SERVICE = "bedrock"
FRAME_ERRORS = (ParserError, struct.error, KeyError, ValueError)  # what botocore raises of a frame that cannot be
_REGION = re.compile(r"[/.]bedrock-runtime(?:-fips)?\.([a-z0-9-]+)\.")  # before it stands a VPC endpoint's own name


class BedrockWire:
    """vendor.Wire; credentials are those of the process: on Lambda the function's role."""

    def __init__(self, session: Any = None) -> None:
        self._session = session or get_session()

    def sign(self, provider: Provider, request: ProviderRequest) -> ProviderRequest:
        """The request with a signature for its region. Raises: ProviderAuth, without credentials or a region."""
        named = _REGION.search(provider.base_url)
        region = named[1] if named else os.environ.get("AWS_REGION")
        credentials = self._credentials()
        if credentials is None or region is None:
            raise ProviderAuth("There are no AWS credentials, or no region, to ask Bedrock with")
        aws_request = AWSRequest(
            request.method, provider.base_url.rstrip("/") + request.path, dict(request.headers), request.body
        )
        SigV4Auth(credentials, SERVICE, region).add_auth(aws_request)
        return replace(request, headers=dict(aws_request.headers.items()))

    def _credentials(self) -> Any:
        """As they are now, or None. Raises: ProviderAuth, where they cannot be renewed."""
        try:
            found = self._session.get_credentials()
            return found and found.get_frozen_credentials()
        except BotoCoreError as error:
            raise ProviderAuth("The AWS credentials to ask Bedrock with cannot be renewed") from error

    def decode_frames(self, pieces: Generator[list[bytes]]) -> Generator[list[bytes]]:
        """Each frame as one server-sent event, `{"<its type>": <what it holds>}`; one that tells a failure is `error`.

        What is no whole frame yet is an empty event: something has come. Raises: ProviderError, where a frame is
        damaged; ProviderTimeout, where the stream ends within one.
        """
        frames: Any = EventStreamBuffer()
        rest = 0
        with closing(pieces):
            for batch in pieces:
                data = b"".join(batch)
                frames.add_data(data)
                rest += len(data)
                told: list[bytes] = []
                try:
                    for frame in frames:
                        rest -= frame.prelude.total_length
                        told.append(_event(frame))
                except FRAME_ERRORS as error:
                    yield told
                    raise ProviderError("Bedrock sent a damaged stream", may_be_billed=True) from error
                yield told or (batch[:1] and [b""])
        if rest:
            raise ProviderTimeout("Bedrock broke off its answer", may_be_billed=True)


def _event(frame: Any) -> bytes:
    """https://smithy.io/2.0/aws/amazon-eventstream.html"""
    headers = frame.headers
    name = headers.get(":event-type") or headers.get(":exception-type") or headers.get(":error-code") or "unknown"
    payload = frame.payload or json.dumps({"message": headers.get(":error-message", "")}).encode()
    told = sse.format_event(b"{%b:%b}" % (json.dumps(name).encode(), payload))
    return told if headers.get(":message-type") == "event" else b"event: error\n" + told
