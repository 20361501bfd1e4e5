"""Maps errors within successful responses and streams of OpenAI's protocol to ProviderErrors."""

from aiserver.errors import ProviderError
from aiserver.providers.call import Upstream
from aiserver.providers.error_mapping import ErrorBody, map_error, map_late_error
from aiserver.providers.provider import Provider
from aiserver.providers.response import ProviderResponse
from aiserver.wire import json_scan

# The status for an error's `code` or `type` within a stream, which has no status of its own.
# https://platform.openai.com/docs/guides/error-codes https://docs.claude.com/en/api/errors
# https://github.com/huggingface/text-generation-inference/issues/2749
NAMED_STATUSES = {
    "invalid_request_error": 400,
    "context_length_exceeded": 400,
    "validation": 400,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "permission_error": 403,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "overloaded": 429,
    "overloaded_error": 503,
}
EMPTY_ERRORS = (b"null", b"false", b"{}", b'""')  # values of `error` that mean no error


def choice_error(finish_reason: bytes, error: bytes) -> bytes:
    """Return the error that ended a choice as a JSON error object, b"" if there is none. OpenRouter sends such errors.

    https://openrouter.ai/docs/api-reference/errors
    """
    is_error = error[:1] == b"{" and error not in EMPTY_ERRORS
    return b'{"error":%b}' % (error if is_error else b"{}") if is_error or finish_reason == b'"error"' else b""


def empty_response_error(provider: Provider, body: bytes, headers: dict[str, str]) -> ProviderError:
    """Map a response with status 200 but without a result to an error; the provider may bill for it."""
    return map_late_error(provider, ProviderResponse(200, headers, body), ErrorBody(body))


def map_stream_error(upstream: Upstream, data: bytes, *, has_content: bool) -> ProviderError:
    """Map an error event of a stream by the status it names. Without content before it, nothing is billed."""
    text = json_scan.unwrap_single(data)
    body = ErrorBody(text)
    if body.is_object and not body.is_error and "code" in (json_scan.find_members(text, "code") or {}):
        text = b'{"error":' + text + b"}"  # the event is a bare error object
        body = ErrorBody(text)
    status = body.status or NAMED_STATUSES.get(body.code) or NAMED_STATUSES.get(body.type)
    if status is None:
        error = map_late_error(upstream.provider, ProviderResponse(200, {}, text), body)
    else:
        error = map_error(upstream, ProviderResponse(status, {}, text), retry_after_s=None)
    error.may_be_billed = has_content
    return error
