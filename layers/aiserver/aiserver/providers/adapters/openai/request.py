"""Builds requests in OpenAI's protocol.

Source: https://platform.openai.com/docs/api-reference/chat/create
"""

from aiserver.operations import CHAT, BodyKind, ResponseKind
from aiserver.providers.call import ProviderCall, Upstream
from aiserver.providers.request import ProviderRequest
from aiserver.wire.upstream_body import with_model, with_usage, without_vendor_members

MODELS_PATH = "/models"


def build_body(upstream: Upstream, call: ProviderCall) -> bytes:
    """The caller's body, byte for byte, except for the model and members for other vendors."""
    if call.operation.request is BodyKind.JSON:
        return without_vendor_members(with_model(call.body, upstream.model))
    return call.body


def request_usage(upstream: Upstream, call: ProviderCall, body: bytes) -> bytes:
    """The body with usage requested for a stream, if the provider supports that; the same bytes if it needs no edit."""
    is_supported = call.operation is CHAT and upstream.provider.catalogue_preset.stream_usage
    return with_usage(body) if call.stream and is_supported else body


def build_request(upstream: Upstream, call: ProviderCall, body: bytes) -> ProviderRequest:
    headers = {"content-type": call.content_type}
    if call.idempotency_key:
        headers["idempotency-key"] = call.idempotency_key
    expects_json = call.operation.response is ResponseKind.JSON
    return ProviderRequest("POST", call.operation.path, upstream.api_key, body, headers, expects_json=expects_json)


def list_models_request(page_token: str | None) -> ProviderRequest:
    return ProviderRequest("GET", MODELS_PATH, None)
