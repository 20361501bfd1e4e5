"""Builds requests in OpenAI's protocol.

Source: https://platform.openai.com/docs/api-reference
"""

from aiserver.operations import CHAT, ResponseKind
from aiserver.providers.call import ProviderCall, Upstream
from aiserver.providers.request import ProviderRequest
from aiserver.wire.upstream_body import with_default_members, with_model, with_usage, without_vendor_members

MODELS_PATH = "/models"


def build_json(upstream: Upstream, call: ProviderCall) -> bytes:
    """The caller's body, byte for byte, except for the model, members for other vendors and the model's settings."""
    body = without_vendor_members(with_model(call.body, upstream.model))
    return with_default_members(body, upstream.settings)


def request_usage(upstream: Upstream, call: ProviderCall, body: bytes) -> bytes:
    """The body with usage requested for a stream, if the provider supports that; the same bytes if it needs no edit."""
    is_supported = call.operation is CHAT and upstream.provider.catalogue_preset.stream_usage
    return with_usage(body) if call.stream and is_supported else body


def build_request(
    upstream: Upstream, call: ProviderCall, body: bytes, content_type: str, response_format: str | None = None
) -> ProviderRequest:
    headers = {"content-type": content_type}
    if call.operation.response is ResponseKind.BYTES:
        headers["accept"] = "*/*"
    if call.idempotency_key:
        headers["idempotency-key"] = call.idempotency_key
    return ProviderRequest(
        "POST",
        upstream.provider.path_of(call.operation),
        upstream.api_key,
        body,
        headers,
        response=call.operation.response_kind(response_format),
        is_media=call.operation.is_media,
    )


def list_models_request(page_token: str | None) -> ProviderRequest:
    return ProviderRequest("GET", MODELS_PATH, None)
