"""The routes of the API beside AI Server's requests, its errors, and the messages that it sends by itself.

The reference in docs is generated from these rows, and tests compare them with the template and the code.
"""

from aiserver.dtos.schema import ErrorRow, EventRow, Route

RELAYED = "as the provider sends it, whole or as a [stream](streaming.md)"
AUDIO, IMAGES = "the provider's response: [audio](use/audio.md)", "the provider's response: [images](use/images.md)"
QUEUED = "the accepted job, with its status URL in `Location`"
MEDIA = {
    "audio/transcriptions": AUDIO,
    "audio/translations": AUDIO,
    "audio/speech": AUDIO,
    "images/generations": IMAGES,
    "images/edits": IMAGES,
    "images/variations": IMAGES,
}
ACCEPTED = "QueueOpenAiChatResponse"

ROUTES = (
    Route("POST", "/v1/chat/completions", RELAYED, request="OpenAiChat", response="OpenAiChatResponse"),
    Route("POST", "/v1/embeddings", RELAYED, request="OpenAiEmbeddings", response="OpenAiEmbeddingsResponse"),
    Route("POST", "/v1/responses", "the provider's response, whole or as a [stream](streaming.md)"),
    *(Route("POST", f"/v1/{path}", doc) for path, doc in MEDIA.items()),
    Route("POST", "/v1/queue/chat/completions", QUEUED, "202", request="OpenAiChat", response=ACCEPTED),
    *(Route("POST", f"/v1/queue/{path}", QUEUED, "202", response=ACCEPTED) for path in MEDIA),
    Route("GET", "/v1/jobs/{id}/result", "the result of a job alone; a large one is a redirect", "200, 302"),
    Route("GET", "/v1/jobs/{id}/events", "the changes of a job as [server-sent events](#watch-a-job)"),
    Route("GET", "/v1/models", "OpenAI's list of models"),
    Route("GET", "/v1/models/{id}", "OpenAI's description of a model"),
    Route("GET", "/artifacts/{path}", "a redirect to a file, for its signed URL or the key that owns it", "302"),
    Route("HEAD", "/artifacts/{path}", "the headers of the file", "302"),
    Route("GET", "/types", "the URLs of the types; no key is needed"),
    Route("GET", "/types/metadata", "the types as JSON, in the form of ServiceStack's metadata; no key is needed"),
    Route("GET", "/types/{language}", "the [types](use/types.md) in a language; no key is needed"),
    Route("GET", "/health", '`{"status":"ok"}`; no key is needed'),
    Route("POST", "/health", "the same: also a receiver for test callbacks"),
)

INVALID, SERVER = "invalid_request_error", "server_error"
ERRORS = (
    ErrorRow(
        *("400", "ValidationException", INVALID, ("invalid_request",)),
        "the request is invalid; every invalid field is listed",
    ),
    ErrorRow(*("401", "Unauthorized", INVALID, ("invalid_api_key",)), "the key is missing, wrong, revoked or expired"),
    ErrorRow("403", "Forbidden", "permission_error", ("forbidden",), "the key lacks permission"),
    ErrorRow(
        *("404", "NotFound", INVALID, ("not_found", "model_not_found")),
        "unknown model, job or route; another key's job",
    ),
    ErrorRow(
        *("409", "Conflict", INVALID, ("idempotency_conflict",)),
        "RefId used with another body; the job has ended, has no result, or no callback to repeat",
    ),
    ErrorRow(
        *("413", "PayloadTooLarge", INVALID, ("request_too_large",)), "the body is over 5 MB, or a form over 4.5 MB"
    ),
    ErrorRow(
        *("415", "UnsupportedMediaType", INVALID, ("unsupported_content_encoding",)),
        "the body is compressed (`Content-Encoding`); send it uncompressed",
    ),
    ErrorRow(
        *("4xx", "ProviderRejected", INVALID, ("invalid_request",)),
        "the provider rejected the request: its status and error, with its `type` and `code`",
    ),
    ErrorRow(
        *("429", "TooManyRequests", "rate_limit_error", ("rate_limit_exceeded",)),
        "the provider's rate limit or concurrency limit; API Gateway's own limit",
    ),
    ErrorRow(
        *("502", "ProviderError", SERVER, ("provider_error",)),
        "the provider's response was invalid or too large; a 5xx of the provider keeps its status",
    ),
    ErrorRow(
        *("502", "ProviderError", SERVER, ("provider_auth",)),
        "the provider rejected the gateway's API key, account or configuration",
    ),
    ErrorRow(
        *("503", "ProviderUnavailable", SERVER, ("provider_unavailable",)),
        "could not connect to the provider, it returned 503, or its circuit breaker is open"
        " ([circuit](providers.md#circuits))",
    ),
    ErrorRow(
        *("504", "ProviderTimeout", SERVER, ("provider_timeout",)),
        "no response in time: it may have been generated and billed",
    ),
    ErrorRow(
        *("500", "InternalError", SERVER, ("internal_error",)),
        "a fault of the gateway; report it with the request id",
    ),
)

STREAM, WATCH, BUS, CALLBACK = "a streamed response", "`/v1/jobs/{id}/events`", "EventBridge", "`replyTo`"
EVENTS = (
    EventRow(STREAM, "data", "a chunk, as the provider's protocol defines it"),
    EventRow(STREAM, "data: [DONE]", "the end of a complete stream of chunks"),
    EventRow(STREAM, "error", "the last event of a failed stream: `error` and `responseStatus`"),
    EventRow(WATCH, "data", "the state of the job, without its result", "GetOpenAiChatStatusResponse"),
    EventRow(BUS, "JobCompleted", "a job has completed", "JobEvent"),
    EventRow(BUS, "JobFailed", "a job has failed", "JobEvent"),
    EventRow(BUS, "JobCancelled", "a job was cancelled", "JobEvent"),
    EventRow(CALLBACK, "chat", "the provider's response, or the error body of a job that failed or was cancelled"),
    EventRow(CALLBACK, "audio and images", "the outputs of AI Server's requests", "GenerationCallback"),
)
