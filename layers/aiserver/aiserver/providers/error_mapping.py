"""Maps failed responses in OpenAI's format to ProviderErrors; other vendors' errors are translated to it first."""

import json
from dataclasses import replace

import msgspec

from aiserver.errors import (
    ProviderAuth,
    ProviderError,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
)
from aiserver.limits import MAX_ERROR_BYTES
from aiserver.providers.call import Upstream
from aiserver.providers.error_message import extract_message, truncate
from aiserver.providers.provider import Provider
from aiserver.providers.response import ProviderResponse
from aiserver.wire import json_scan
from aiserver.wire.upstream_body import VENDORS

BOM = b"\xef\xbb\xbf"
GATEWAY_TIMEOUTS = (504, 524)  # a proxy timed out after the provider had received the request
UNREACHABLE_STATUSES = (502, 530)  # without JSON, from a self-hosted GPU: its proxy or tunnel cannot reach it
# Request members that name state stored by a provider; for translated vendors, the vendor-specific member.
PROVIDER_STATE_PARAMS = ("previous_response_id", "conversation", "prompt", *VENDORS)

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
        "model_terms_required",  # Groq: https://console.groq.com/docs/text-to-speech
    }
)


def map_error(upstream: Upstream, response: ProviderResponse, *, retry_after_s: int | None) -> ProviderError:
    """Map a failed response: errors of the gateway's configuration first, then bodies without JSON, then the status."""
    provider, body = upstream.provider, ErrorBody(json_scan.unwrap_single(response.body))
    if _is_configuration_error(upstream, response.status, body):
        return _configuration_error(response.status)
    message = body.message or f"Provider {provider.name}: status {response.status}"
    if not body.is_object and response.status in GATEWAY_TIMEOUTS:
        return ProviderTimeout(message, upstream_status=response.status, may_be_billed=True)
    if not body.is_object or response.status < 400:
        return _map_non_json_error(provider, response, retry_after_s)
    return _map_status(_add_message(response, body, message), body, message, retry_after_s)


def _is_configuration_error(upstream: Upstream, status: int, body: "ErrorBody") -> bool:
    """Whether the gateway's key, account, URL or model name is wrong, and not the caller's request."""
    if status == 403 and body.param in VENDORS:  # the caller named a resource of the provider
        return False
    if status in (401, 402, 403) or _is_credential_error(upstream.provider, status, body):
        return True
    names_unknown_model = upstream.model_is_configured and body.param not in PROVIDER_STATE_PARAMS
    return status == 404 and (not body.is_object or names_unknown_model)  # without JSON the path is unknown


def _map_status(
    response: ProviderResponse, body: "ErrorBody", message: str, retry_after_s: int | None
) -> ProviderError:
    """Map an error with a JSON body by its status, 400 or above."""
    match response.status:
        case 429:
            return ProviderRateLimited(message, upstream=response, retry_after_s=retry_after_s)
        case 503:
            return ProviderUnavailable(message, upstream=response, retry_after_s=retry_after_s)
        case status if status in GATEWAY_TIMEOUTS:
            return ProviderTimeout(message, upstream=response, may_be_billed=True)
        case status if status >= 500:
            return ProviderError(message, upstream=response, retry_after_s=retry_after_s)
        case _:
            return ProviderRejected(message, upstream=response, code=body.code, param=body.param)


def _map_non_json_error(provider: Provider, response: ProviderResponse, retry_after_s: int | None) -> ProviderError:
    status, detail = response.status, extract_message(response.body)
    message = f"Provider {provider.name}: status {status}" + (f": {detail}" if detail else " without a JSON body")
    if 400 <= status < 500:
        kind = ProviderRateLimited if status == 429 else ProviderRejected
        return kind(message, upstream=response, retry_after_s=retry_after_s)
    is_unavailable = status == 503 or (status in UNREACHABLE_STATUSES and provider.queue == "gpu")
    kind = ProviderUnavailable if is_unavailable else ProviderError
    return kind(message, upstream_status=status, retry_after_s=retry_after_s)


def _add_message(response: ProviderResponse, body: "ErrorBody", message: str) -> ProviderResponse:
    """Add a message to an error object without a message string, since clients read it."""
    if not body.lacks_message:
        return response
    try:
        members = _MEMBERS.decode(json_scan.unwrap_single(response.body).removeprefix(BOM))
        error = _MEMBERS.decode(members["error"]) | {"message": msgspec.Raw(msgspec.json.encode(message))}
    except (msgspec.DecodeError, UnicodeDecodeError):
        return response
    return replace(response, body=msgspec.json.encode(members | {"error": error}))


def map_late_error(provider: Provider, response: ProviderResponse, body: "ErrorBody") -> ProviderError:
    """Map a failure with status 200: the provider failed after sending the status, and may bill for its output."""
    if _is_credential_error(provider, response.status, body):
        return _configuration_error(response.status, may_be_billed=True)
    reason = "with an error" if body.is_error else "without a result"
    message = body.message or f"Provider {provider.name}: status {response.status} {reason}"
    return ProviderError(message, upstream=_add_message(response, body, message), may_be_billed=True)


def _is_credential_error(provider: Provider, status: int, body: "ErrorBody") -> bool:
    """Whether the error concerns the gateway's key or account, although its status does not show it."""
    if body.code in ACCOUNT_CODES or body.type in ACCOUNT_CODES:
        return True
    return any(
        status == rule.status and body.message.startswith(rule.message_prefix)
        for rule in provider.catalogue_preset.credential_errors
    )


def _configuration_error(status: int, *, may_be_billed: bool = False) -> ProviderError:
    # The provider's own message may contain part of the key.
    message = "The provider rejected the gateway's API key, account or configuration"
    return ProviderAuth(message, upstream_status=status, may_be_billed=may_be_billed)


_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])


class ErrorBody:
    """The members of a response body that describe a failure."""

    def __init__(self, body: bytes) -> None:
        members = json_scan.find_members(body, "error", "error_type")
        self.is_object = members is not None
        members = members or {}
        error = members.get("error", b"null")
        self.is_error = error != b"null"
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
