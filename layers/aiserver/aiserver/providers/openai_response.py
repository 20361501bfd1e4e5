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
    ProviderTimeout,
    ProviderUnavailable,
    UpstreamAnswer,
)
from aiserver.limits import MAX_ERROR_BYTES, MAX_EVENT_VALUES, MAX_USAGE_BYTES
from aiserver.providers.error_message import cut, reason
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
NOT_REACHED = (502, 530)  # without JSON, of an own GPU: the proxy or tunnel before it does not reach it
# What a caller names of what a provider keeps; of a vendor that is translated, in the vendor's own member.
KEPT_THERE = ("previous_response_id", "conversation", "prompt", *VENDORS)
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
NO_ERROR = (b"null", b"false", b"{}", b'""')  # what stands where an error would

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


def judged(
    provider: Provider, operation: str, answer: UpstreamAnswer, *, model_is_configured: bool, wait_s: int | None
) -> UpstreamAnswer:
    """The answer, if it is one, with its usage. Raises: what it means otherwise."""
    if not answer.is_success:
        raise failure(provider, answer, model_is_configured=model_is_configured, wait_s=wait_s)
    told = _Told(answer.body)
    if not told.is_object:
        words = reason(answer.body)
        said = f"Provider {provider.name} answered something that is not JSON" + (f": {words}" if words else "")
        raise ProviderError(said, may_be_billed=True)
    if not _holds_answer(answer.body, operation):
        raise no_answer(provider, answer.body, answer.headers)
    if operation == "chat.completions" and (error := _error_of_choice(answer.body)):
        raise failure_within(provider, error, has_begun=True, model_is_configured=model_is_configured)
    return UpstreamAnswer(200, answer.headers, answer.body, usage=told.usage)


def failed_choice(finish_reason: bytes, error: bytes) -> bytes:
    """The error that a choice ended by, as one by itself; OpenRouter has them so, and nothing where there is none.

    https://openrouter.ai/docs/api-reference/errors
    """
    is_error = error[:1] == b"{" and error not in NO_ERROR
    return b'{"error":%b}' % (error if is_error else b"{}") if is_error or finish_reason == b'"error"' else b""


def _error_of_choice(body: bytes) -> bytes:
    """That of the first choice which has one. A response of very many values is not searched: it is long enough."""
    if b'"error"' not in body or count_values(body, MAX_EVENT_VALUES) > MAX_EVENT_VALUES:
        return b""
    try:
        choices = _FAILED_CHOICES.decode(body).choices
    except msgspec.DecodeError:
        return b""
    return next((error for one in choices if (error := failed_choice(bytes(one.finish_reason), bytes(one.error)))), b"")


def _holds_answer(body: bytes, operation: str) -> bool:
    """Whether it holds what was asked for; only its start is read, and nothing copied, since it may be large."""
    member, begins = RESULTS[operation]
    try:
        result: msgspec.Raw | bytes = getattr(_ANSWER.decode(memoryview(body.removeprefix(BOM))), member)
    except msgspec.DecodeError:  # half a surrogate pair, which scan lets pass
        result = (json_scan.members(body, member) or {}).get(member, b"")
    return bool(begins.match(memoryview(result)))


def no_answer(provider: Provider, body: bytes, headers: dict[str, str]) -> ProviderError:
    """A response with status 200 that holds no answer: an error of the provider, which may bill for it."""
    return _failed_late(provider, UpstreamAnswer(200, headers, body), _Told(body))


def failure(
    provider: Provider, answer: UpstreamAnswer, *, model_is_configured: bool, wait_s: int | None
) -> ProviderError:
    """What an answer means that is none."""
    status, told = answer.status, _Told(json_scan.sole(answer.body))
    message = told.message or f"Provider {provider.name} answered status {status}"
    answer = _with_message(answer, told, message)
    if status == 403 and told.param in VENDORS:
        return ProviderRejected(message, upstream=answer, code=told.code, param=told.param)
    if status in (401, 402, 403) or _is_ours(provider, status, told):
        return _refused_us(status)
    if status == 404 and (not told.is_object or (model_is_configured and told.param not in KEPT_THERE)):
        return _refused_us(status)  # there is no such path, or no such model: both stand in our own configuration
    if status in GATEWAY_TIMEOUTS and not told.is_object:
        return ProviderTimeout(message, upstream_status=status, may_be_billed=True)
    if not told.is_object or status < 400:
        return _without_json(provider, answer, wait_s)
    if status == 429:
        return ProviderRateLimited(message, upstream=answer, retry_after_s=wait_s)
    if status == 503:
        return ProviderUnavailable(message, upstream=answer, retry_after_s=wait_s)
    if status in GATEWAY_TIMEOUTS:
        return ProviderTimeout(message, upstream=answer, may_be_billed=True)
    if status >= 500:
        return ProviderError(message, upstream=answer, retry_after_s=wait_s)
    return ProviderRejected(message, upstream=answer, code=told.code, param=told.param)


def failure_within(provider: Provider, data: bytes, *, has_begun: bool, model_is_configured: bool) -> ProviderError:
    """What an error means that came as an event of a stream, by the status it names; before any answer, nothing was."""
    body = json_scan.sole(data)
    told = _Told(body)
    if told.is_object and not told.is_error and "code" in (json_scan.members(body, "code") or {}):  # an error by itself
        body = b'{"error":' + body + b"}"
        told = _Told(body)
    status = told.status or NAMED_STATUSES.get(told.code) or NAMED_STATUSES.get(told.type)
    if status is None:
        error = _failed_late(provider, UpstreamAnswer(200, {}, body), told)
    else:
        named = UpstreamAnswer(status, {}, body)
        error = failure(provider, named, model_is_configured=model_is_configured, wait_s=None)
    error.may_be_billed = has_begun
    return error


def model_ids(provider: Provider, answer: UpstreamAnswer) -> list[str]:
    """The ids of a list of models, sorted, without the row's prefix. Raises: ProviderError where it is no list."""
    try:
        listed = _LIST.decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ProviderError(f"Provider {provider.name} answered something that is no list of models") from None
    models = listed.data if isinstance(listed, _Listed) else listed
    return sorted({model.id.removeprefix(provider.row.id_prefix) for model in models})


def _without_json(provider: Provider, answer: UpstreamAnswer, wait_s: int | None) -> ProviderError:
    status, words = answer.status, reason(answer.body)
    said = f"Provider {provider.name} answered status {status}" + (f": {words}" if words else " without JSON")
    if 400 <= status < 500:
        kind = ProviderRateLimited if status == 429 else ProviderRejected
        return kind(said, upstream=answer, retry_after_s=wait_s)
    is_away = status == 503 or (status in NOT_REACHED and provider.queue == "gpu")
    kind = ProviderUnavailable if is_away else ProviderError
    return kind(said, upstream_status=status, retry_after_s=wait_s)


def _with_message(answer: UpstreamAnswer, told: "_Told", message: str) -> UpstreamAnswer:
    """Where the provider's error object has no message that is a string, its reason becomes one: clients read it."""
    if not told.lacks_message:
        return answer
    try:
        body = _MEMBERS.decode(json_scan.sole(answer.body).removeprefix(BOM))
        error = _MEMBERS.decode(body["error"]) | {"message": msgspec.Raw(msgspec.json.encode(message))}
    except (msgspec.DecodeError, UnicodeDecodeError):
        return answer
    return replace(answer, body=msgspec.json.encode(body | {"error": error}))


def _failed_late(provider: Provider, answer: UpstreamAnswer, told: "_Told") -> ProviderError:
    """No answer with status 200: it failed once the status was out, and may be billed for what it made until then."""
    if _is_ours(provider, answer.status, told):
        return _refused_us(answer.status, may_be_billed=True)
    what = "with an error" if told.is_error else "without an answer"
    message = told.message or f"Provider {provider.name} answered status {answer.status} {what}"
    return ProviderError(message, upstream=_with_message(answer, told, message), may_be_billed=True)


def _is_ours(provider: Provider, status: int, told: "_Told") -> bool:
    """Whether our key or account is meant, though the status alone does not say so."""
    if told.code in ACCOUNT_CODES or told.type in ACCOUNT_CODES:
        return True
    return any(status == known.status and told.message.startswith(known.words) for known in provider.row.refusals)


def _refused_us(status: int, *, may_be_billed: bool = False) -> ProviderError:
    said = "The provider refused the gateway's own account or configuration"  # its own words may show part of the key
    return ProviderAuth(said, upstream_status=status, may_be_billed=may_be_billed)


def kept_usage(text: bytes) -> str | None:
    """The JSON text of a usage, if it is one and no longer than a job can hold."""
    return text.decode() if text[:1] == b"{" and len(text) <= MAX_USAGE_BYTES else None


class _Model(msgspec.Struct):
    id: str


class _Listed(msgspec.Struct):
    data: list[_Model]


_LIST = msgspec.json.Decoder(_Listed | list[_Model])  # Together lists without an object around
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])


class _Answer(msgspec.Struct):
    choices: msgspec.Raw = msgspec.Raw(b"")
    data: msgspec.Raw = msgspec.Raw(b"")
    output: msgspec.Raw = msgspec.Raw(b"")


_ANSWER = msgspec.json.Decoder(_Answer)


class _FailedChoice(msgspec.Struct):
    finish_reason: msgspec.Raw = msgspec.Raw(b"")
    error: msgspec.Raw = msgspec.Raw(b"")


class _FailedChoices(msgspec.Struct):
    choices: list[_FailedChoice] = []


_FAILED_CHOICES = msgspec.json.Decoder(_FailedChoices)


class _Told:
    """What an upstream's body says of itself."""

    def __init__(self, body: bytes) -> None:
        found = json_scan.members(body, "usage", "error", "error_type")
        self.is_object = found is not None
        found = found or {}
        usage, error = found.get("usage", b""), found.get("error", b"null")
        self.is_error = error != b"null"
        self.usage = kept_usage(usage)
        inner = json_scan.members(error, "message", "type", "code", "param")
        self.lacks_message = inner is not None and not _string(inner.get("message"))
        inner = inner or {}
        self._body = body
        self._words = _string(inner.get("message"))
        self.code = _string(inner.get("code")) or ""
        self.type = _string(inner.get("type")) or _string(found.get("error_type")) or ""
        self.param = _string(inner.get("param"))
        number = inner.get("code", b"").strip(b'"')
        self.status = int(number) if len(number) == 3 and number.isdigit() and number[:1] in b"45" else None

    @property
    def message(self) -> str:
        """Why it failed, in its own words; empty where it does not say."""
        return cut(self._words) if self._words else reason(self._body)


def _string(text: bytes | None) -> str | None:
    """What a JSON text says, if it is a string and no longer than an error can be."""
    return json.loads(text) if text and text[:1] == b'"' and len(text) <= MAX_ERROR_BYTES else None
