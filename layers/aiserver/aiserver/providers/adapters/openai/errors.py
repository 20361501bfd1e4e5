"""Checks responses of OpenAI's protocol and maps failed ones to ProviderErrors."""

import json
import re
from dataclasses import replace

import msgspec

from aiserver.errors import (
    ProviderAuth,
    ProviderError,
    ProviderRateLimited,
    ProviderRejected,
    ProviderResponse,
    ProviderTimeout,
    ProviderUnavailable,
)
from aiserver.limits import MAX_ERROR_BYTES, MAX_EVENT_VALUES, MAX_USAGE_BYTES
from aiserver.providers.error_message import extract_message, truncate
from aiserver.providers.provider import Provider
from aiserver.wire import json_scan
from aiserver.wire.json_text import count_values
from aiserver.wire.upstream_body import VENDORS

# The member that contains the result, and the start of its JSON text; the output of a response may be empty.
_OBJECTS, _ARRAY = re.compile(rb"\[\s*\{"), re.compile(rb"\[")
RESULTS = {
    "chat.completions": ("choices", _OBJECTS),
    "embeddings": ("data", _OBJECTS),
    "responses": ("output", _ARRAY),
}
BOM = b"\xef\xbb\xbf"
GATEWAY_TIMEOUTS = (504, 524)  # a proxy timed out after the provider had received the request
UNREACHABLE_STATUSES = (502, 530)  # without JSON, from a self-hosted GPU: its proxy or tunnel cannot reach it
# Request members that name state stored by a provider; for translated vendors, the vendor-specific member.
PROVIDER_STATE_PARAMS = ("previous_response_id", "conversation", "prompt", *VENDORS)
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

# An error's `code`, or its `type` if the code is null, that concerns the account, with any status (mostly 429).
# https://learn.microsoft.com/en-us/microsoft-cloud/dev/dev-proxy/concepts/openai-insufficient-quota
# https://github.com/BerriAI/litellm/issues/2743 and, with a code of null,
# https://github.com/Chanzhaoyu/chatgpt-web/issues/1273
# https://community.openai.com/t/error-message-billing-hard-limit-reached-when-curling-https-api-openai-com-v1-images-generations/74856
ACCOUNT_CODES = frozenset(
    {
        "insufficient_quota",
        "billing_not_active",
        "billing_hard_limit_reached",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
        "project_spend_limit_exceeded",
    }
)


def check_response(
    provider: Provider,
    operation: str,
    response: ProviderResponse,
    *,
    model_is_configured: bool,
    retry_after_s: int | None,
) -> ProviderResponse:
    """Return a successful response with its usage. Raises: the ProviderError that a failed response means."""
    if not response.is_success:
        raise map_error(provider, response, model_is_configured=model_is_configured, retry_after_s=retry_after_s)
    body = _ResponseBody(response.body)
    if not body.is_object:
        detail = extract_message(response.body)
        message = f"Provider {provider.name}: the response is not valid JSON" + (f": {detail}" if detail else "")
        raise ProviderError(message, may_be_billed=True)
    if not _has_result(response.body, operation):
        raise empty_response_error(provider, response.body, response.headers)
    if operation == "chat.completions" and (error := _first_choice_error(response.body)):
        raise map_stream_error(provider, error, has_content=True, model_is_configured=model_is_configured)
    return ProviderResponse(200, response.headers, response.body, usage=body.usage)


def choice_error(finish_reason: bytes, error: bytes) -> bytes:
    """Return the error that ended a choice as a JSON error object, b"" if there is none. OpenRouter sends such errors.

    https://openrouter.ai/docs/api-reference/errors
    """
    is_error = error[:1] == b"{" and error not in EMPTY_ERRORS
    return b'{"error":%b}' % (error if is_error else b"{}") if is_error or finish_reason == b'"error"' else b""


def _first_choice_error(body: bytes) -> bytes:
    """Return the error of the first failed choice. Responses over MAX_EVENT_VALUES are not searched."""
    if b'"error"' not in body or count_values(body, MAX_EVENT_VALUES) > MAX_EVENT_VALUES:
        return b""
    try:
        choices = _FAILED_CHOICES.decode(body).choices
    except msgspec.DecodeError:
        return b""
    errors = (choice_error(bytes(choice.finish_reason), bytes(choice.error)) for choice in choices)
    return next(filter(None, errors), b"")


def _has_result(body: bytes, operation: str) -> bool:
    """Whether the body contains a result. Reads only its start and copies nothing, since it may be large."""
    member, start = RESULTS[operation]
    try:
        result: msgspec.Raw | bytes = getattr(_ANSWER.decode(memoryview(body.removeprefix(BOM))), member)
    except msgspec.DecodeError:  # half a surrogate pair, which find_members accepts
        result = (json_scan.find_members(body, member) or {}).get(member, b"")
    return bool(start.match(memoryview(result)))


def empty_response_error(provider: Provider, body: bytes, headers: dict[str, str]) -> ProviderError:
    """Map a response with status 200 but without a result to an error; the provider may bill for it."""
    return _map_late_error(provider, ProviderResponse(200, headers, body), _ResponseBody(body))


def map_error(
    provider: Provider, response: ProviderResponse, *, model_is_configured: bool, retry_after_s: int | None
) -> ProviderError:
    """Map a failed provider response to a ProviderError."""
    status, body = response.status, _ResponseBody(json_scan.unwrap_single(response.body))
    message = body.message or f"Provider {provider.name}: status {status}"
    response = _add_message(response, body, message)
    if status == 403 and body.param in VENDORS:
        return ProviderRejected(message, upstream=response, code=body.code, param=body.param)
    if status in (401, 402, 403) or _is_credential_error(provider, status, body):
        return _credential_error(status)
    if status == 404 and (not body.is_object or (model_is_configured and body.param not in PROVIDER_STATE_PARAMS)):
        return _credential_error(status)  # an unknown path or model: both come from the gateway's configuration
    if status in GATEWAY_TIMEOUTS and not body.is_object:
        return ProviderTimeout(message, upstream_status=status, may_be_billed=True)
    if not body.is_object or status < 400:
        return _map_non_json_error(provider, response, retry_after_s)
    if status == 429:
        return ProviderRateLimited(message, upstream=response, retry_after_s=retry_after_s)
    if status == 503:
        return ProviderUnavailable(message, upstream=response, retry_after_s=retry_after_s)
    if status in GATEWAY_TIMEOUTS:
        return ProviderTimeout(message, upstream=response, may_be_billed=True)
    if status >= 500:
        return ProviderError(message, upstream=response, retry_after_s=retry_after_s)
    return ProviderRejected(message, upstream=response, code=body.code, param=body.param)


def map_stream_error(provider: Provider, data: bytes, *, has_content: bool, model_is_configured: bool) -> ProviderError:
    """Map an error event of a stream by the status it names. Without content before it, nothing is billed."""
    text = json_scan.unwrap_single(data)
    body = _ResponseBody(text)
    if body.is_object and not body.is_error and "code" in (json_scan.find_members(text, "code") or {}):
        text = b'{"error":' + text + b"}"  # the event is a bare error object
        body = _ResponseBody(text)
    status = body.status or NAMED_STATUSES.get(body.code) or NAMED_STATUSES.get(body.type)
    if status is None:
        error = _map_late_error(provider, ProviderResponse(200, {}, text), body)
    else:
        response = ProviderResponse(status, {}, text)
        error = map_error(provider, response, model_is_configured=model_is_configured, retry_after_s=None)
    error.may_be_billed = has_content
    return error


def parse_model_ids(provider: Provider, response: ProviderResponse) -> list[str]:
    """Return the sorted model ids without the preset's prefix. Raises: ProviderError, for another response."""
    try:
        models = _LIST.decode(response.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ProviderError(f"Provider {provider.name}: the response is not a list of models") from None
    models = models.data if isinstance(models, _ModelList) else models
    return sorted({model.id.removeprefix(provider.catalogue_preset.id_prefix) for model in models})


def _map_non_json_error(provider: Provider, response: ProviderResponse, retry_after_s: int | None) -> ProviderError:
    status, detail = response.status, extract_message(response.body)
    message = f"Provider {provider.name}: status {status}" + (f": {detail}" if detail else " without a JSON body")
    if 400 <= status < 500:
        kind = ProviderRateLimited if status == 429 else ProviderRejected
        return kind(message, upstream=response, retry_after_s=retry_after_s)
    is_unavailable = status == 503 or (status in UNREACHABLE_STATUSES and provider.queue == "gpu")
    kind = ProviderUnavailable if is_unavailable else ProviderError
    return kind(message, upstream_status=status, retry_after_s=retry_after_s)


def _add_message(response: ProviderResponse, body: "_ResponseBody", message: str) -> ProviderResponse:
    """Add a message to an error object without a message string, since clients read it."""
    if not body.lacks_message:
        return response
    try:
        members = _MEMBERS.decode(json_scan.unwrap_single(response.body).removeprefix(BOM))
        error = _MEMBERS.decode(members["error"]) | {"message": msgspec.Raw(msgspec.json.encode(message))}
    except (msgspec.DecodeError, UnicodeDecodeError):
        return response
    return replace(response, body=msgspec.json.encode(members | {"error": error}))


def _map_late_error(provider: Provider, response: ProviderResponse, body: "_ResponseBody") -> ProviderError:
    """Map a failure with status 200: the provider failed after sending the status, and may bill for its output."""
    if _is_credential_error(provider, response.status, body):
        return _credential_error(response.status, may_be_billed=True)
    reason = "with an error" if body.is_error else "without a result"
    message = body.message or f"Provider {provider.name}: status {response.status} {reason}"
    return ProviderError(message, upstream=_add_message(response, body, message), may_be_billed=True)


def _is_credential_error(provider: Provider, status: int, body: "_ResponseBody") -> bool:
    """Whether the error concerns the gateway's key or account, although its status does not show it."""
    if body.code in ACCOUNT_CODES or body.type in ACCOUNT_CODES:
        return True
    return any(
        status == rule.status and body.message.startswith(rule.message_prefix)
        for rule in provider.catalogue_preset.credential_errors
    )


def _credential_error(status: int, *, may_be_billed: bool = False) -> ProviderError:
    # The provider's own message may contain part of the key.
    message = "The provider rejected the gateway's API key, account or configuration"
    return ProviderAuth(message, upstream_status=status, may_be_billed=may_be_billed)


def storable_usage(text: bytes) -> str | None:
    """Return the JSON text of a usage object, None if it is not an object or too large to be stored with a job."""
    return text.decode() if text[:1] == b"{" and len(text) <= MAX_USAGE_BYTES else None


class _Model(msgspec.Struct):
    id: str


class _ModelList(msgspec.Struct):
    data: list[_Model]


_LIST = msgspec.json.Decoder(_ModelList | list[_Model])  # Together AI returns a bare list
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])


class _Results(msgspec.Struct):
    choices: msgspec.Raw = msgspec.Raw(b"")
    data: msgspec.Raw = msgspec.Raw(b"")
    output: msgspec.Raw = msgspec.Raw(b"")


_ANSWER = msgspec.json.Decoder(_Results)


class _FailedChoice(msgspec.Struct):
    finish_reason: msgspec.Raw = msgspec.Raw(b"")
    error: msgspec.Raw = msgspec.Raw(b"")


class _FailedChoices(msgspec.Struct):
    choices: list[_FailedChoice] = []


_FAILED_CHOICES = msgspec.json.Decoder(_FailedChoices)


class _ResponseBody:
    """The members of a response body that describe success or failure."""

    def __init__(self, body: bytes) -> None:
        members = json_scan.find_members(body, "usage", "error", "error_type")
        self.is_object = members is not None
        members = members or {}
        usage, error = members.get("usage", b""), members.get("error", b"null")
        self.is_error = error != b"null"
        self.usage = storable_usage(usage)
        details = json_scan.find_members(error, "message", "type", "code", "param")
        self.lacks_message = details is not None and not _decode_string(details.get("message"))
        details = details or {}
        self._body = body
        self._message = _decode_string(details.get("message"))
        self.code = _decode_string(details.get("code")) or ""
        self.type = _decode_string(details.get("type")) or _decode_string(members.get("error_type")) or ""
        self.param = _decode_string(details.get("param"))
        number = details.get("code", b"").strip(b'"')
        self.status = int(number) if len(number) == 3 and number.isdigit() and number[:1] in b"45" else None

    @property
    def message(self) -> str:
        """The provider's error message; empty if there is none."""
        return truncate(self._message) if self._message else extract_message(self._body)


def _decode_string(text: bytes | None) -> str | None:
    """Decode a JSON string of at most MAX_ERROR_BYTES; None for any other JSON text."""
    return json.loads(text) if text and text[:1] == b'"' and len(text) <= MAX_ERROR_BYTES else None
