"""Binds requests: model requests, the queue requests around them (HTTP or SQS), job references, query parameters.

Three naming styles are accepted (`max_tokens`, `maxTokens`, `MaxTokens`); unknown members are forwarded unchanged.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from aiserver import operations
from aiserver.errors import InvalidRequest
from aiserver.limits import MAX_BATCH, MAX_NAME_CHARS, MAX_REPLY_TO_CHARS
from aiserver.operations import Operation
from aiserver.wire import json_text as json_text
from aiserver.wire.binding import bind, scalar_value
from aiserver.wire.http_dates import parse_iso_ms
from aiserver.wire.json_text import Member
from aiserver.wire.render import JSON_MEDIA_TYPE
from aiserver.wire.schemas import CHAT, EMBEDDINGS, RESPONSES, ObjectSchema, fold_name
from aiserver.wire.validation import invalid_field

GATEWAY_FIELDS = {fold_name(name): name for name in ("refId", "tag", "replyTo", "deadline", "provider")}
_MAX_CHARS = {
    **dict.fromkeys(("refId", "tag", "state"), MAX_NAME_CHARS),
    "replyTo": MAX_REPLY_TO_CHARS,
}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class Options:
    """The gateway's options of a request, from its body, its envelope or its headers.

    `state` is AI Server's: the caller's own text, which its callback contains.
    """

    ref_id: str | None = None
    tag: str | None = None
    reply_to: str | None = None
    deadline: str | int | float | None = None
    provider: str | None = None
    state: str | None = None

    def with_defaults(self, defaults: "Options") -> "Options":
        """These options, with `defaults` for the absent ones."""
        names = ("ref_id", "tag", "reply_to", "deadline", "provider", "state")
        return Options(**{name: _first_non_null(getattr(self, name), getattr(defaults, name)) for name in names})


@dataclass(frozen=True)
class ModelRequest:
    """A request as it is sent to the provider, except for the model's name. `content_type` is that of the body.

    `name` is AI Server's request that it came as, and `ignored` are its members that have no effect.
    Queueing, calls, waits and callbacks depend on nothing of the request but its operation.
    """

    operation: Operation
    body: bytes
    model: str
    options: Options
    stream: bool = False
    content_type: str = JSON_MEDIA_TYPE
    name: str = ""
    ignored: tuple[str, ...] = ()

    @property
    def prefers_segments(self) -> bool:
        """Whether a transcript should contain times, if the provider is known to support them, as for SpeechToText."""
        return bool(self.name) and self.operation is operations.TRANSCRIPTIONS

    @property
    def hash_name(self) -> str:
        """What distinguishes this request from one with the same body, for `jobs.job.request_hash`."""
        return f"{self.operation.name}+segments" if self.prefers_segments else self.operation.name

    def with_options(self, options: Options) -> "ModelRequest":
        """The request with these options, and its own for the absent ones."""
        return replace(self, options=options.with_defaults(self.options))


@dataclass(frozen=True)
class IntakeMessage:
    """A queue request received as an SQS message, and the id of the API key that owns the job."""

    key_id: str
    request: ModelRequest


def bind_chat(body: str | bytes, *, drop: Collection[str] = ()) -> ModelRequest:
    """Bind an OpenAI chat body; the members in `drop` are removed with the gateway's options.

    Raises: InvalidRequest, with every invalid member listed.
    """
    return bind_json(operations.CHAT, body, CHAT, drop)


def bind_embeddings(body: str | bytes) -> ModelRequest:
    """Bind an OpenAI embeddings body. Raises: InvalidRequest."""
    return bind_json(operations.EMBEDDINGS, body, EMBEDDINGS)


def bind_responses(body: str | bytes) -> ModelRequest:
    """Bind a body of OpenAI's Responses API. Raises: InvalidRequest."""
    return bind_json(operations.RESPONSES, body, RESPONSES)


def bind_queue_chat(body: str | bytes) -> ModelRequest:
    """Bind AI Server's QueueOpenAiChatCompletion, `{refId?, provider?, replyTo?, tag?, deadline?, request}`.

    Raises: InvalidRequest.
    """
    return _bind_inner_chat(*_split_envelope(body, GATEWAY_FIELDS))


def bind_intake_message(body: str | bytes, key_id: str | None) -> IntakeMessage:
    """Bind a message of the intake queue: a queue request with a `keyId`, or `key_id` from the message attribute.

    Raises: InvalidRequest, when both are absent, or when they differ.
    """
    envelope, request = _split_envelope(body, GATEWAY_FIELDS | {"keyid": "keyId"})
    body_key_id = envelope.pop("keyId", None)
    if not isinstance(body_key_id, str | None):
        raise invalid_field("InvalidType", "keyId", "'keyId' must be a string")
    if body_key_id and key_id and body_key_id != key_id:
        raise invalid_field("Conflict", "keyId", "'keyId' differs between the message body and the message attribute")
    owner_key_id = body_key_id or key_id
    if not owner_key_id:
        raise invalid_field("NotEmpty", "keyId", "'keyId' is required: the ID of the API key that owns the job")
    return IntakeMessage(owner_key_id, _bind_inner_chat(envelope, request))


def bind_openai_queue_chat(body: str | bytes, options: Options) -> ModelRequest:
    """Bind a chat body to be queued; `options`, from headers or the envelope, override those in the body."""
    inner = bind_chat(body, drop=("stream", "stream_options"))  # a queued job cannot stream
    return inner.with_options(options)


def split_batch(body: str | bytes) -> list[bytes]:
    """The JSON texts of a batch's requests, at most MAX_BATCH. Raises: InvalidRequest."""
    text = validate_json(body)
    if not text.lstrip().startswith(b"["):
        raise invalid_field("InvalidType", "", "A batch must be a JSON array of requests")
    batch: list[bytes] = []
    for start, end in json_text.iterate_elements(text):
        if len(batch) == MAX_BATCH:
            raise InvalidRequest(f"A batch can contain at most {MAX_BATCH} requests")
        batch.append(text[start:end])
    return batch


def options_from_headers(headers: Mapping[str, str]) -> Options:
    """The options in headers: X-Ref-Id (or Idempotency-Key), X-Tag, X-Reply-To, X-Provider, X-Deadline.

    Header names are in lower case. Raises: InvalidRequest.
    """
    fields = {
        "refId": headers.get("x-ref-id") or headers.get("idempotency-key"),
        "tag": headers.get("x-tag"),
        "replyTo": headers.get("x-reply-to"),
        "provider": headers.get("x-provider"),
        "deadline": headers.get("x-deadline"),
    }
    return parse_options({name: value for name, value in fields.items() if value is not None})


def bind_job_reference(body: str | bytes) -> tuple[int | None, str | None]:
    """The id and RefId of a job, `{id?, refId?}`; 0 and "" mean absent. Raises: InvalidRequest."""
    text = validate_json(body)
    members = _gateway_members(root_members(text), {"id": "id", "jobid": "id", "refid": "refId"})
    fields = {name: scalar_value(text, member) for name, member in members.items()}
    job_id, ref_id = fields.get("id") or None, fields.get("refId") or None
    if isinstance(job_id, str) and _is_number(job_id):
        job_id = int(job_id)
    if isinstance(job_id, bool) or not isinstance(job_id, int | None):
        raise invalid_field("InvalidType", "id", "'id' must be an integer")
    if not isinstance(ref_id, str | None):
        raise invalid_field("InvalidType", "refId", "'refId' must be a string")
    return job_id, ref_id


def bind_reply_to(body: str | bytes) -> str:
    """The URL of a sample callback, `{replyTo}`. Raises: InvalidRequest."""
    text = validate_json(body)
    members = _gateway_members(root_members(text), {fold_name("replyTo"): "replyTo"})
    reply_to = parse_options({name: scalar_value(text, member) for name, member in members.items()}).reply_to
    if not reply_to:
        raise invalid_field("NotEmpty", "replyTo", "'replyTo' is required: the URL to send the sample callback to")
    return reply_to


def query_value(query: Mapping[str, str], name: str) -> str | None:
    """A query parameter, by its case-insensitive name; None when empty, as typed clients send it."""
    for key, value in query.items():
        if fold_name(key) == fold_name(name) and value:
            return value
    return None


def query_integer(query: Mapping[str, str], name: str) -> int | None:
    """A query parameter as a positive integer; None for 0, as typed clients send it. Raises: InvalidRequest."""
    value = query_value(query, name)
    if value is None:
        return None
    if not _is_number(value):
        raise invalid_field("InvalidType", name, f"'{name}' must be an integer")
    return int(value) or None


def query_time(query: Mapping[str, str], name: str) -> int | None:
    """A query parameter as Unix time in ms: an ISO date, or a date-time, in UTC unless it has an offset."""
    value = query_value(query, name)
    if value is None:
        return None
    try:
        return parse_iso_ms(value)
    except (ValueError, OverflowError):
        message = f"'{name}' must be an ISO date or date-time, such as 2026-11-30 or 2026-11-30T08:00:00Z"
        raise invalid_field("InvalidType", name, message) from None


def parse_job_id(segment: str) -> int:
    """The job id in a path segment; 0, which no job has, for other text."""
    return int(segment) if _is_number(segment) else 0


def _is_number(text: str) -> bool:
    """Whether the text consists of digits, at most as many as an id may have."""
    return text.isascii() and text.isdigit() and len(text) <= 18


def bind_json(
    operation: Operation, body: str | bytes, schema: ObjectSchema, drop: Collection[str] = ()
) -> ModelRequest:
    """Split a JSON body into the request for the provider and the gateway's options. Raises: InvalidRequest."""
    text = validate_json(body)
    root = root_members(text)
    gateway_members = _gateway_members(root, GATEWAY_FIELDS)
    fields = {name: scalar_value(text, member) for name, member in gateway_members.items()}
    options = parse_options(fields)
    bound = bind(text, root, schema, drop)
    # A `provider` that is not a string is a provider's own option, and is forwarded.
    option_names = [name for name, value in fields.items() if name != "provider" or isinstance(value, str | None)]
    keys_to_remove = {gateway_members[name].key for name in option_names} | (bound.members.keys() & set(drop))
    edited = json_text.without_members(json_text.apply_edits(text, bound.edits), keys_to_remove)
    stream = bound.members.get("stream")
    is_stream = stream is not None and "stream" not in drop and scalar_value(text, stream) is True
    return ModelRequest(operation, edited, str(scalar_value(text, bound.members["model"])), options, is_stream)


def validate_json(body: str | bytes) -> bytes:
    """The body as a JSON text that is safe to edit. Raises: InvalidRequest."""
    text = json_text.encode_utf8(body)
    json_text.check_json(text)
    return text


def _split_envelope(body: str | bytes, names: Mapping[str, str]) -> tuple[dict[str, Any], bytes | None]:
    """The known members of a queue request's envelope, and the JSON text of its `request`."""
    text = validate_json(body)
    members = _gateway_members(root_members(text), {**names, "request": "request"})
    request = members.pop("request", None)
    envelope = {name: scalar_value(text, member) for name, member in members.items()}
    return envelope, text[request.value_start : request.value_end] if request else None


def _bind_inner_chat(envelope: dict[str, Any], request: bytes | None) -> ModelRequest:
    if request is None:
        raise invalid_field("NotEmpty", "request", "'request' is required: the chat completion to run")
    return bind_openai_queue_chat(request, parse_options(envelope))


def root_members(text: bytes) -> list[Member]:
    """The members of the root object of a checked text. Raises: InvalidRequest, when it is not an object."""
    if not text.lstrip().startswith(b"{"):
        raise invalid_field("InvalidType", "", "The request body must be a JSON object")
    return json_text.parse_members(text)


def _gateway_members(root: list[Member], names: Mapping[str, str]) -> dict[str, Member]:
    """The members of `root` that are listed in `names` (folded → canonical), by canonical name."""
    members: dict[str, Member] = {}
    for member in root:
        name = names.get(fold_name(member.key))
        if name in members:
            raise invalid_field("Duplicate", name, f"'{name}' is given more than once")
        if name:
            members[name] = member
    return members


def parse_options(fields: Mapping[str, Any]) -> Options:
    """The options in fields with these canonical names. Raises: InvalidRequest."""
    for name, max_chars in _MAX_CHARS.items():
        text = fields.get(name)
        if text is None:
            continue
        if not isinstance(text, str):
            raise invalid_field("InvalidType", name, f"'{name}' must be a string")
        if not 1 <= len(text) <= max_chars or _CONTROL.search(text):
            raise invalid_field(
                "InvalidLength", name, f"'{name}' must be 1 to {max_chars} characters without control characters"
            )
    deadline = fields.get("deadline")
    if isinstance(deadline, bool) or not isinstance(deadline, str | int | float | None):
        raise invalid_field("InvalidType", "deadline", "'deadline' must be a date or a number of seconds")
    provider = fields.get("provider")
    return Options(
        ref_id=fields.get("refId"),
        tag=fields.get("tag"),
        reply_to=fields.get("replyTo"),
        deadline=deadline,
        provider=provider if isinstance(provider, str) and provider else None,
        state=fields.get("state"),
    )


def _first_non_null(first: Any, second: Any) -> Any:
    return second if first is None else first
