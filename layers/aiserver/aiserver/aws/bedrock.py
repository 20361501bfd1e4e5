"""What Amazon Bedrock needs beyond HTTP: requests signed for the function's own role, and its frames of events.

Source: https://docs.aws.amazon.com/bedrock/latest/userguide/conversation-inference-call.html
"""

import json
import os
import re
from collections.abc import Generator
from dataclasses import replace
from typing import Any

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.eventstream import EventStreamBuffer, ParserError
from botocore.session import get_session

from aiserver.errors import ProviderAuth, ProviderError
from aiserver.providers.exchange import Asked
from aiserver.providers.provider import Provider
from aiserver.wire import sse

SERVICE = "bedrock"
_REGION = re.compile(r"//bedrock-runtime(?:-fips)?\.([a-z0-9-]+)\.")


class BedrockWire:
    """vendor.Wire; credentials are those of the process: on Lambda the function's role."""

    def __init__(self, session: Any = None) -> None:
        self._session = session or get_session()

    def signed(self, provider: Provider, asked: Asked) -> Asked:
        """The request with a signature for its region. Raises: ProviderAuth, without credentials or a region."""
        credentials = self._session.get_credentials()
        named = _REGION.search(provider.base_url)
        region = named[1] if named else os.environ.get("AWS_REGION")
        if credentials is None or region is None:
            raise ProviderAuth("There are no AWS credentials, or no region, to ask Bedrock with")
        request = AWSRequest(asked.method, provider.base_url.rstrip("/") + asked.path, dict(asked.headers), asked.body)
        SigV4Auth(credentials.get_frozen_credentials(), SERVICE, region).add_auth(request)
        return replace(asked, headers=dict(request.headers.items()))

    def events(self, pieces: Generator[list[bytes]]) -> Generator[list[bytes]]:
        """Each frame as one server-sent event, `{"<its type>": <what it holds>}`. Raises: ProviderError."""
        frames = EventStreamBuffer()
        for batch in pieces:
            frames.add_data(b"".join(batch))
            try:
                yield [_event(frame) for frame in frames]
            except ParserError as error:
                raise ProviderError("Bedrock sent a damaged stream", may_be_billed=True) from error


def _event(frame: Any) -> bytes:
    headers = frame.headers
    name = headers.get(":event-type") or headers.get(":exception-type") or headers.get(":error-code") or "unknown"
    payload = frame.payload or json.dumps({"message": headers.get(":error-message", "")}).encode()
    return sse.event(b"{%b:%b}" % (json.dumps(name).encode(), payload))
