"""Every way a request can fail, as one small tree.

* AiServerError                500  InternalError         ours: no detail leaves the house
  x InvalidRequest             400  ValidationException   the caller's request is wrong
  x Unauthorized               401  Unauthorized          no key, a bad one, an expired one
  x Forbidden                  403  Forbidden             the key may not do this
  x NotFound                   404  NotFound              unknown model, job or route; another key's job
  x Conflict                   409  Conflict              RefId reused with another body; the job has ended
  x PayloadTooLarge            413  PayloadTooLarge       the body is larger than we take
  x UnsupportedMediaType       415  UnsupportedMediaType  the body is compressed
  x TooManyRequests            429  TooManyRequests       a limit of ours
  x ProviderError              502  ProviderError         the provider answered badly
    + ProviderRejected         400  ProviderRejected      the provider refused the request: its answer is relayed
    + ProviderAuth             502  ProviderError         our key or account at the provider, not the caller's
    + ProviderRateLimited      429  TooManyRequests       the provider asks to slow down
      - ProviderBusy           429  TooManyRequests       by our own count it has all the calls it may have
    + ProviderUnavailable      503  ProviderUnavailable   nothing was done: no connection, or the provider said so
      - ProviderCircuitOpen    503  ProviderUnavailable   it has failed too often of late: it was not asked
    + ProviderTimeout          504  ProviderTimeout       sent, and no answer: perhaps done, perhaps billed

`status` is what the HTTP caller sees, `error_code` and (`type`, `code`) are its two names: AI Server's and OpenAI's.
`retryable` is what the worker and the failover read. Nothing else decides either.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class FieldError:
    """One member of a request that is wrong."""

    error_code: str
    field_name: str
    message: str


class AiServerError(Exception):
    """Root of the tree; raised as itself only for faults of our own."""

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


@dataclass(frozen=True)
class ProviderResponse:
    """What a provider said, kept as it came: status, the headers we relay, the body's bytes.

    `usage` is its own JSON text of what the call used, where it told.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    usage: str | None = None

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300


class ProviderError(AiServerError):
    status = 502
    error_code = "ProviderError"
    code = "provider_error"
    retryable = True
    is_neutral = False  # it says nothing against the provider: what the model wrote failed, or our own memory is full

    def __init__(
        self,
        message: str = "",
        *,
        code: str = "",
        param: str | None = None,
        fields: tuple[FieldError, ...] = (),
        retry_after_s: int | None = None,
        upstream: ProviderResponse | None = None,
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
    """All calls that it may have at once are under way, by our own count: it was not asked."""


class ProviderUnavailable(ProviderError):
    status = 503
    error_code = "ProviderUnavailable"
    code = "provider_unavailable"


class ProviderCircuitOpen(ProviderUnavailable):
    """It has failed too often of late, by what all functions have seen: it was not asked."""


class ProviderTimeout(ProviderError):
    """The outcome is unknown: repeating the call could be paid for twice."""

    status = 504
    error_code = "ProviderTimeout"
    code = "provider_timeout"
    retryable = False
