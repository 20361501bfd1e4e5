"""Every limit of size, count and depth; docs/api.md lists them from here.

Timeouts and retry schedules are defined in the modules that wait.
"""

KB = 1024
MB = 1024 * KB


class Limit(int):
    """A number with its unit, its subject, and the consequence of exceeding it, as text for the docs' table."""

    unit: str
    subject: str
    when_exceeded: str

    def __new__(cls, value: int, unit: str, subject: str, when_exceeded: str) -> "Limit":
        limit = super().__new__(cls, value)
        limit.unit, limit.subject, limit.when_exceeded = unit, subject, when_exceeded
        return limit


# Requests
MAX_BODY_BYTES = Limit(5 * MB, "bytes", "request body", "413")  # JSON-escaped it must fit into Lambda's 6 MB event
# In base64, with 30 headers, it fits into Lambda's 6 MB event; 4.5 MiB would not.
MAX_FORM_BYTES = Limit(4_500_000, "bytes", "request body that is a form", "413")
MAX_FORM_PARTS = Limit(64, "parts", "parts of a form", "400")
MAX_PART_HEADER_BYTES = Limit(8 * KB, "bytes", "one header of a part of a form", "400")
MIN_IMAGE_PIXELS_PER_SIDE = Limit(64, "pixels", "width and height of AI Server's requests for images (at least)", "400")
MAX_IMAGE_PIXELS_PER_SIDE = Limit(2048, "pixels", "width and height of AI Server's requests for images", "400")
MAX_IMAGE_BATCH = Limit(10, "images", "`batchSize` of AI Server's requests for images", "400")
MAX_VALUES = Limit(500_000, "values", "JSON values of a request body", "400")
MAX_DEPTH = Limit(100, "levels", "nesting of a request body", "400")
MAX_MESSAGES = Limit(10_000, "messages", "messages of one chat request", "400")
MAX_FIELD_ERRORS = Limit(20, "errors", "errors listed for one request", "further errors are not listed")
MAX_BATCH = Limit(100, "requests", "requests of one batch", "400")
MAX_NAME_CHARS = Limit(256, "characters", "model, RefId, Tag, state", "400")
MAX_REPLY_TO_CHARS = Limit(2048, "characters", "ReplyTo", "400")
MAX_CORS_NAMES_CHARS = Limit(
    1 * KB, "characters", "header names in a preflight request or in Access-Control-Expose-Headers", "omitted"
)

# Responses
MAX_BUFFERED_BYTES = Limit(6 * MB - 64 * KB, "bytes", "response of a non-streaming function", "502")

# Provider responses
MAX_RESPONSE_BYTES = Limit(64 * MB, "bytes", "complete provider response, decompressed", "502")
LARGE_RESPONSE_BYTES = Limit(
    16 * MB, "bytes", "provider response of a job, read in parallel with others", "read one at a time"
)
MAX_CONTENT_BLOCKS = Limit(100_000, "blocks", "content blocks of one response from Anthropic, Gemini or Bedrock", "502")
MAX_RESPONSE_VALUES = Limit(
    1_000_000, "values", "JSON values of one response or event from Anthropic, Gemini or Bedrock", "502"
)
MAX_EVENT_BYTES = Limit(16 * MB, "bytes", "one event of a provider's stream", "502, or an error event")
MAX_ERROR_BYTES = Limit(1 * MB, "bytes", "error response of a provider", "the remainder is not read")
MAX_LIST_BYTES = Limit(16 * MB, "bytes", "model list of a provider", "502")
MAX_HEADER_CHARS = Limit(1024, "characters", "one relayed response header", "the header is not relayed")
MAX_HEADERS_CHARS = Limit(4 * KB, "characters", "all relayed response headers", "further headers are not relayed")
MAX_ERROR_MESSAGE_CHARS = Limit(4 * KB, "characters", "a provider's error message", "truncated")
MAX_CHOICES = Limit(1024, "choices", "choices of one streamed response", "502, or an error event")
MAX_EVENT_VALUES = Limit(
    100_000, "values", "JSON values of the choices in one streamed event", "502, or an error event"
)
MAX_STORED_IMAGES = Limit(10, "images", "images of one response that are stored", "further ones are named as lost")
MAX_DOWNLOAD_BYTES = Limit(
    64 * MB, "bytes", "images of one response that are downloaded from the provider's URLs", "further ones are lost"
)
MAX_USAGE_BYTES = Limit(2048, "bytes", "usage stored with a job", "not stored")

# Callbacks
MAX_CALLBACK_BYTES = Limit(
    256 * KB, "bytes", "result in the body of a callback", "a link to the result is sent instead"
)
MAX_RECEIVER_BYTES = Limit(16 * KB, "bytes", "callback receiver's response with headers", "the remainder is not read")
