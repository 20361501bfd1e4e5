"""Amazon Bedrock's request signing (SigV4, with the function's role) and its binary event stream frames.

Source: https://docs.aws.amazon.com/bedrock/latest/userguide/conversation-inference-call.html
"""

import json
import os
import re
import struct
from collections.abc import Generator, Iterator
from dataclasses import replace
from typing import Any

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.eventstream import EventStreamBuffer, ParserError
from botocore.exceptions import BotoCoreError
from botocore.session import get_session

from aiserver.errors import ProviderAuth, ProviderError, ProviderTimeout
from aiserver.providers.adapters.base.adapter import FrameDecoder
from aiserver.providers.provider import Provider
from aiserver.providers.request import ProviderRequest
from aiserver.wire import sse

SERVICE = "bedrock"
FRAME_ERRORS = (ParserError, struct.error, KeyError, ValueError)  # raised by botocore for an invalid frame
_REGION = re.compile(r"[/.]bedrock-runtime(?:-fips)?\.([a-z0-9-]+)\.")  # the id of a VPC endpoint may precede it


class BedrockSigner:
    """The RequestSigner of the Bedrock adapter, with the credentials of the process: on Lambda the function's role."""

    def __init__(self, session: Any = None) -> None:
        self._session = session or get_session()

    def __call__(self, provider: Provider, request: ProviderRequest) -> ProviderRequest:
        """The request, signed for the region of the base_url. Raises: ProviderAuth, without credentials or a region."""
        match = _REGION.search(provider.base_url)
        region = match[1] if match else os.environ.get("AWS_REGION")
        credentials = self._credentials()
        if credentials is None or region is None:
            missing = "AWS credentials" if credentials is None else "AWS region"
            raise ProviderAuth(f"Provider {provider.name}: no {missing} found")
        aws_request = AWSRequest(
            request.method, provider.base_url.rstrip("/") + request.path, dict(request.headers), request.body
        )
        SigV4Auth(credentials, SERVICE, region).add_auth(aws_request)
        return replace(request, headers=dict(aws_request.headers.items()))

    def _credentials(self) -> Any:
        """The current credentials, or None. Raises: ProviderAuth, when they cannot be refreshed."""
        try:
            credentials = self._session.get_credentials()
            return credentials and credentials.get_frozen_credentials()
        except BotoCoreError as error:
            raise ProviderAuth("The AWS credentials for Bedrock cannot be refreshed") from error


def decode_frames(batches: Iterator[list[bytes] | None], provider: str) -> Generator[list[bytes] | None]:
    """Each frame as one server-sent event, `{"<event type>": <payload>}`; an exception frame is an `error` event.

    The FrameDecoder of the Bedrock adapter. Raises: ProviderError, when a frame is invalid; ProviderTimeout, when the
    stream ends inside a frame.
    """
    frames: Any = EventStreamBuffer()
    unread_bytes = 0
    for chunks in batches:
        received = b"".join(chunks or ())
        frames.add_data(received)
        unread_bytes += len(received)
        events: list[bytes] = []
        try:
            for frame in frames:
                unread_bytes -= frame.prelude.total_length
                events.append(_format_frame(frame))
        except FRAME_ERRORS as error:
            yield events or None
            message = f"Provider {provider}: Bedrock returned an invalid event stream"
            raise ProviderError(message, may_be_billed=True) from error
        yield events or None
    if unread_bytes:
        message = f"Provider {provider}: Bedrock closed the connection before the response was complete"
        raise ProviderTimeout(message, may_be_billed=True)


def bedrock_transport(session: Any = None) -> tuple[BedrockSigner, FrameDecoder]:
    """What the adapter registry needs for Bedrock, whose adapter does no I/O and does not import botocore."""
    return BedrockSigner(session), decode_frames


def _format_frame(frame: Any) -> bytes:
    """One frame as a server-sent event. Source: https://smithy.io/2.0/aws/amazon-eventstream.html"""
    headers = frame.headers
    name = headers.get(":event-type") or headers.get(":exception-type") or headers.get(":error-code") or "unknown"
    payload = frame.payload or json.dumps({"message": headers.get(":error-message", "")}).encode()
    event = sse.format_event(b"{%b:%b}" % (json.dumps(name).encode(), payload))
    return event if headers.get(":message-type") == "event" else b"event: error\n" + event
