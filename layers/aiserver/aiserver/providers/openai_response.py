"""What an upstream's answer of OpenAI's protocol means: an answer, or which of the ProviderErrors."""

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

# The member that holds an answer, and how its JSON text begins; the output of a response may be empty.
_OBJECTS, _ARRAY = re.compile(rb"\[\s*\{"), re.compile(rb"\[")
RESULTS = {
    "chat.completions": ("choices", _OBJECTS),
    "embeddings": ("data", _OBJECTS),
    "responses": ("output", _ARRAY),
}
BOM = b"\xef\xbb\xbf"
GATEWAY_TIMEOUTS = (504, 524)  # a proxy gave up on a provider that has the request
UNREACHABLE_STATUSES = (502, 530)  # without JSON, of an own GPU: the proxy or tunnel before it does not reach it
# What a caller names of what a provider keeps; of a vendor that is translated, in the vendor's own member.
PROVIDER_STATE_PARAMS = ("previous_response_id", "conversation", "prompt", *VENDORS)
# The status that an error's `code`, or its `type`, stands for where a stream can show none.
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
EMPTY_ERRORS = (b"null", b"false", b"{}", b'""')  # what stands where an error would

# An error's `code`, or its `type` where the code is null, that means the account whatever the status (mostly 429).
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
    """The answer, if it is one, with its usage. Raises: what it means otherwise."""
    if not response.is_success:
        raise map_error(provider, response, model_is_configured=model_is_configured, retry_after_s=retry_after_s)
    told = _ResponseBody(response.body)
    if not told.is_object:
        words = extract_message(response.body)
        said = f"Provider {provider.name} answered something that is not JSON" + (f": {words}" if words else "")
        raise ProviderError(said, may_be_billed=True)
    if not _has_result(response.body, operation):
        raise empty_response_error(provider, response.body, response.headers)
    if operation == "chat.completions" and (error := _first_choice_error(response.body)):
        raise map_stream_error(provider, error, has_content=True, model_is_configured=model_is_configured)
    return ProviderResponse(200, response.headers, response.body, usage=told.usage)


def choice_error(finish_reason: bytes, error: bytes) -> bytes:
    """The error that a choice ended by, as one by itself; OpenRouter has them so, and nothing where there is none.

    https://openrouter.ai/docs/api-reference/errors
    """
    is_error = error[:1] == b"{" and error not in EMPTY_ERRORS
    return b'{"error":%b}' % (error if is_error else b"{}") if is_error or finish_reason == b'"error"' else b""


def _first_choice_error(body: bytes) -> bytes:
    """That of the first choice which has one. A response of very many values is not searched: it is long enough."""
    if b'"error"' not in body or count_values(body, MAX_EVENT_VALUES) > MAX_EVENT_VALUES:
        return b""
    try:
        choices = _FAILED_CHOICES.decode(body).choices
    except msgspec.DecodeError:
        return b""
    return next((error for one in choices if (error := choice_error(bytes(one.finish_reason), bytes(one.error)))), b"")


def _has_result(body: bytes, operation: str) -> bool:
    """Whether it holds what was asked for; only its start is read, and nothing copied, since it may be large."""
    member, begins = RESULTS[operation]
    try:
        result: msgspec.Raw | bytes = getattr(_ANSWER.decode(memoryview(body.removeprefix(BOM))), member)
    except msgspec.DecodeError:  # half a surrogate pair, which scan lets pass
        result = (json_scan.find_members(body, member) or {}).get(member, b"")
    return bool(begins.match(memoryview(result)))


def empty_response_error(provider: Provider, body: bytes, headers: dict[str, str]) -> ProviderError:
    """A response with status 200 that holds no answer: an error of the provider, which may bill for it."""
    return _map_late_error(provider, ProviderResponse(200, headers, body), _ResponseBody(body))


def map_error(
    provider: Provider, response: ProviderResponse, *, model_is_configured: bool, retry_after_s: int | None
) -> ProviderError:
    """What an answer means that is none."""
    status, told = response.status, _ResponseBody(json_scan.unwrap_single(response.body))
    message = told.message or f"Provider {provider.name} answered status {status}"
    response = _add_message(response, told, message)
    if status == 403 and told.param in VENDORS:
        return ProviderRejected(message, upstream=response, code=told.code, param=told.param)
    if status in (401, 402, 403) or _is_credential_error(provider, status, told):
        return _credential_error(status)
    if status == 404 and (not told.is_object or (model_is_configured and told.param not in PROVIDER_STATE_PARAMS)):
        return _credential_error(status)  # there is no such path, or no such model: both stand in our own configuration
    if status in GATEWAY_TIMEOUTS and not told.is_object:
        return ProviderTimeout(message, upstream_status=status, may_be_billed=True)
    if not told.is_object or status < 400:
        return _map_non_json_error(provider, response, retry_after_s)
    if status == 429:
        return ProviderRateLimited(message, upstream=response, retry_after_s=retry_after_s)
    if status == 503:
        return ProviderUnavailable(message, upstream=response, retry_after_s=retry_after_s)
    if status in GATEWAY_TIMEOUTS:
        return ProviderTimeout(message, upstream=response, may_be_billed=True)
    if status >= 500:
        return ProviderError(message, upstream=response, retry_after_s=retry_after_s)
    return ProviderRejected(message, upstream=response, code=told.code, param=told.param)


def map_stream_error(provider: Provider, data: bytes, *, has_content: bool, model_is_configured: bool) -> ProviderError:
    """What an error means that came as an event of a stream, by the status it names; before any answer, nothing was."""
    body = json_scan.unwrap_single(data)
    told = _ResponseBody(body)
    if (
        told.is_object and not told.is_error and "code" in (json_scan.find_members(body, "code") or {})
    ):  # an error by itself
        body = b'{"error":' + body + b"}"
        told = _ResponseBody(body)
    status = told.status or NAMED_STATUSES.get(told.code) or NAMED_STATUSES.get(told.type)
    if status is None:
        error = _map_late_error(provider, ProviderResponse(200, {}, body), told)
    else:
        named = ProviderResponse(status, {}, body)
        error = map_error(provider, named, model_is_configured=model_is_configured, retry_after_s=None)
    error.may_be_billed = has_content
    return error


def parse_model_ids(provider: Provider, response: ProviderResponse) -> list[str]:
    """The ids of a list of models, sorted, without the row's prefix. Raises: ProviderError where it is no list."""
    try:
        listed = _LIST.decode(response.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ProviderError(f"Provider {provider.name} answered something that is no list of models") from None
    models = listed.data if isinstance(listed, _ModelList) else listed
    return sorted({model.id.removeprefix(provider.catalogue_preset.id_prefix) for model in models})


def _map_non_json_error(provider: Provider, response: ProviderResponse, retry_after_s: int | None) -> ProviderError:
    status, words = response.status, extract_message(response.body)
    said = f"Provider {provider.name} answered status {status}" + (f": {words}" if words else " without JSON")
    if 400 <= status < 500:
        kind = ProviderRateLimited if status == 429 else ProviderRejected
        return kind(said, upstream=response, retry_after_s=retry_after_s)
    is_away = status == 503 or (status in UNREACHABLE_STATUSES and provider.queue == "gpu")
    kind = ProviderUnavailable if is_away else ProviderError
    return kind(said, upstream_status=status, retry_after_s=retry_after_s)


def _add_message(response: ProviderResponse, body: "_ResponseBody", message: str) -> ProviderResponse:
    """Where the provider's error object has no message that is a string, its reason becomes one: clients read it."""
    if not body.lacks_message:
        return response
    try:
        members = _MEMBERS.decode(json_scan.unwrap_single(response.body).removeprefix(BOM))
        error = _MEMBERS.decode(members["error"]) | {"message": msgspec.Raw(msgspec.json.encode(message))}
    except (msgspec.DecodeError, UnicodeDecodeError):
        return response
    return replace(response, body=msgspec.json.encode(members | {"error": error}))


def _map_late_error(provider: Provider, response: ProviderResponse, body: "_ResponseBody") -> ProviderError:
    """No answer with status 200: it failed once the status was out, and may be billed for what it made until then."""
    if _is_credential_error(provider, response.status, body):
        return _credential_error(response.status, may_be_billed=True)
    what = "with an error" if body.is_error else "without an answer"
    message = body.message or f"Provider {provider.name} answered status {response.status} {what}"
    return ProviderError(message, upstream=_add_message(response, body, message), may_be_billed=True)


def _is_credential_error(provider: Provider, status: int, body: "_ResponseBody") -> bool:
    """Whether our key or account is meant, though the status alone does not say so."""
    if body.code in ACCOUNT_CODES or body.type in ACCOUNT_CODES:
        return True
    return any(
        status == known.status and body.message.startswith(known.message_prefix)
        for known in provider.catalogue_preset.credential_errors
    )


def _credential_error(status: int, *, may_be_billed: bool = False) -> ProviderError:
    said = "The provider refused the gateway's own account or configuration"  # its own words may show part of the key
    return ProviderAuth(said, upstream_status=status, may_be_billed=may_be_billed)


def storable_usage(text: bytes) -> str | None:
    """The JSON text of a usage, if it is one and no longer than a job can hold."""
    return text.decode() if text[:1] == b"{" and len(text) <= MAX_USAGE_BYTES else None


class _Model(msgspec.Struct):
    id: str


class _ModelList(msgspec.Struct):
    data: list[_Model]


_LIST = msgspec.json.Decoder(_ModelList | list[_Model])  # Together lists without an object around
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
    """What an upstream's body says of itself."""

    def __init__(self, body: bytes) -> None:
        found = json_scan.find_members(body, "usage", "error", "error_type")
        self.is_object = found is not None
        found = found or {}
        usage, error = found.get("usage", b""), found.get("error", b"null")
        self.is_error = error != b"null"
        self.usage = storable_usage(usage)
        inner = json_scan.find_members(error, "message", "type", "code", "param")
        self.lacks_message = inner is not None and not _decode_string(inner.get("message"))
        inner = inner or {}
        self._body = body
        self._message = _decode_string(inner.get("message"))
        self.code = _decode_string(inner.get("code")) or ""
        self.type = _decode_string(inner.get("type")) or _decode_string(found.get("error_type")) or ""
        self.param = _decode_string(inner.get("param"))
        number = inner.get("code", b"").strip(b'"')
        self.status = int(number) if len(number) == 3 and number.isdigit() and number[:1] in b"45" else None

    @property
    def message(self) -> str:
        """Why it failed, in its own words; empty where it does not say."""
        return truncate(self._message) if self._message else extract_message(self._body)


def _decode_string(text: bytes | None) -> str | None:
    """What a JSON text says, if it is a string and no longer than an error can be."""
    return json.loads(text) if text and text[:1] == b'"' and len(text) <= MAX_ERROR_BYTES else None
