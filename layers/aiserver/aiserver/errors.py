"""Every way a request can fail, as one small tree.

* AiServerError                500  InternalError         gateway fault: details go to the log only
  x InvalidRequest             400  ValidationException   the caller's request is wrong
  x Unauthorized               401  Unauthorized          missing, invalid or expired key
  x Forbidden                  403  Forbidden             the key lacks permission
  x NotFound                   404  NotFound              unknown model, job or route; another key's job
  x Conflict                   409  Conflict              RefId reused with another body; the job is terminal
  x PayloadTooLarge            413  PayloadTooLarge       the body exceeds the size limit
  x UnsupportedMediaType       415  UnsupportedMediaType  the body is compressed
  x TooManyRequests            429  TooManyRequests       a limit of the gateway
  x ProviderError              502  ProviderError         invalid or failed provider response
    + ProviderRejected         400  ProviderRejected      the provider rejected the request: its response is relayed
    + ProviderAuth             502  ProviderError         the gateway's key or account at the provider
    + ProviderRateLimited      429  TooManyRequests       the provider's rate limit
      - ProviderBusy           429  TooManyRequests       the gateway's concurrency limit of the provider
    + ProviderUnavailable      503  ProviderUnavailable   not processed: no connection, or the provider reported it
      - ProviderCircuitOpen    503  ProviderUnavailable   the circuit breaker is open: it was not called
    + ProviderTimeout          504  ProviderTimeout       sent, no response: may be processed and billed

`status` is the HTTP status; `error_code` is AI Server's name of the error, (`type`, `code`) are OpenAI's.
The worker and the failover decide by `retryable` alone.
"""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class FieldError:
    """One invalid member of a request."""

    error_code: str
    field_name: str
    message: str


class AiServerError(Exception):
    """Root of the tree; raised itself only for internal errors of the gateway."""

    status = 500
    error_code = "InternalError"
    type = "server_error"
    code = "internal_error"
    retryable = False

    def __init__(
        self,
        message: str = "",
        *,
        code: str = "",
        param: str | None = None,
        fields: tuple[FieldError, ...] = (),
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.param = param
        self.fields = fields
        self.retry_after_s = retry_after_s


class InvalidRequest(AiServerError):
    status = 400
    error_code = "ValidationException"
    type = "invalid_request_error"
    code = "invalid_request"


class Unauthorized(AiServerError):
    status = 401
    error_code = "Unauthorized"
    type = "invalid_request_error"
    code = "invalid_api_key"


class Forbidden(AiServerError):
    status = 403
    error_code = "Forbidden"
    type = "permission_error"
    code = "forbidden"


class NotFound(AiServerError):
    status = 404
    error_code = "NotFound"
    type = "invalid_request_error"
    code = "not_found"


class Conflict(AiServerError):
    status = 409
    error_code = "Conflict"
    type = "invalid_request_error"
    code = "idempotency_conflict"


class PayloadTooLarge(AiServerError):
    status = 413
    error_code = "PayloadTooLarge"
    type = "invalid_request_error"
    code = "request_too_large"


class UnsupportedMediaType(AiServerError):
    status = 415
    error_code = "UnsupportedMediaType"
    type = "invalid_request_error"
    code = "unsupported_content_encoding"


class TooManyRequests(AiServerError):
    status = 429
    error_code = "TooManyRequests"
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class RelayedResponse(Protocol):
    """The provider's response that an error relays to the caller: providers.response.ProviderResponse."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> dict[str, str]: ...
    @property
    def body(self) -> bytes: ...


class ProviderError(AiServerError):
    status = 502
    error_code = "ProviderError"
    code = "provider_error"
    retryable = True
    is_neutral = False  # not counted against the provider: invalid model output, or the gateway's memory is full

    def __init__(
        self,
        message: str = "",
        *,
        code: str = "",
        param: str | None = None,
        fields: tuple[FieldError, ...] = (),
        retry_after_s: int | None = None,
        upstream: RelayedResponse | None = None,
        upstream_status: int | None = None,
        may_be_billed: bool = False,
    ) -> None:
        super().__init__(message, code=code, param=param, fields=fields, retry_after_s=retry_after_s)
        self.upstream = upstream
        self.upstream_status = upstream.status if upstream else upstream_status
        self.may_be_billed = may_be_billed
        if upstream and 400 <= upstream.status < 600:
            self.status = upstream.status


class ProviderRejected(ProviderError):
    status = 400
    error_code = "ProviderRejected"
    type = "invalid_request_error"
    code = "invalid_request"
    retryable = False


class ProviderAuth(ProviderError):
    code = "provider_auth"


class ProviderRateLimited(ProviderError):
    status = 429
    error_code = "TooManyRequests"
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class ProviderBusy(ProviderRateLimited):
    """The provider is at its concurrency limit, as the gateway counts it: it was not called."""


class ProviderUnavailable(ProviderError):
    status = 503
    error_code = "ProviderUnavailable"
    code = "provider_unavailable"


class ProviderCircuitOpen(ProviderUnavailable):
    """The circuit breaker is open after the failures that all functions recorded: it was not called."""


class ProviderTimeout(ProviderError):
    """The outcome is unknown: a retry could be billed twice."""

    status = 504
    error_code = "ProviderTimeout"
    code = "provider_timeout"
    retryable = False
