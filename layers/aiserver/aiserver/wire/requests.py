"""Binds what callers send: a model's request, the queue request around it, by HTTP or by message, a GET's query.

All three naming styles bind (`max_tokens`, `maxTokens`, `MaxTokens`); what we do not know passes as it came.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from aiserver.errors import InvalidRequest
from aiserver.limits import MAX_BATCH, MAX_NAME_CHARS, MAX_REPLY_TO_CHARS
from aiserver.wire import json_text as json_text
from aiserver.wire.binding import bind, scalar_value
from aiserver.wire.json_text import Member
from aiserver.wire.schemas import CHAT, EMBEDDINGS, RESPONSES, ObjectSchema, fold_name
from aiserver.wire.validation import invalid_field

GATEWAY_FIELDS = {fold_name(name): name for name in ("refId", "tag", "replyTo", "deadline", "provider")}
QUEUEABLE_OPERATIONS = ("chat.completions",)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class Options:
    """Our own members of a request, wherever they stood: in its body, around it, or in headers."""

    ref_id: str | None = None
    tag: str | None = None
    reply_to: str | None = None
    deadline: str | int | float | None = None
    provider: str | None = None

    def with_defaults(self, other: "Options") -> "Options":
        """These, and where one is absent the other's."""
        names = ("ref_id", "tag", "reply_to", "deadline", "provider")
        return Options(**{name: _first_non_null(getattr(self, name), getattr(other, name)) for name in names})


@dataclass(frozen=True)
class ModelRequest:
    """A request as the provider will get it, except for the name of its model.

    `operation` names what is asked of the model; whoever queues, calls, waits and replies knows no more of it.
    """

    operation: str
    body: bytes
    model: str
    options: Options
    stream: bool = False

    def with_provider(self, provider: str | None) -> "ModelRequest":
        """The same of this provider, where one is named."""
        return replace(self, options=replace(self.options, provider=provider)) if provider else self


@dataclass(frozen=True)
class IntakeMessage:
    """A queue request that came as a message, and the id of the key it names to answer for it."""

    key_id: str
    request: ModelRequest


def bind_chat(body: str | bytes, *, drop: Collection[str] = ()) -> ModelRequest:
    """Bind an OpenAI chat body; the members named in `drop` are taken out with our own.

    Raises: InvalidRequest, with every wrong member listed.
    """
    return _bind_request("chat.completions", body, CHAT, drop)


def bind_embeddings(body: str | bytes) -> ModelRequest:
    """Bind an OpenAI embeddings body. Raises: InvalidRequest."""
    return _bind_request("embeddings", body, EMBEDDINGS)


def bind_responses(body: str | bytes) -> ModelRequest:
    """Bind a body of OpenAI's Responses API. Raises: InvalidRequest."""
    return _bind_request("responses", body, RESPONSES)


def bind_queue_chat(body: str | bytes) -> ModelRequest:
    """Bind AI Server's QueueOpenAiChatCompletion, `{refId?, provider?, replyTo?, tag?, deadline?, request}`.

    Raises: InvalidRequest.
    """
    return _bind_inner_chat(*_split_envelope(body, GATEWAY_FIELDS))


def bind_intake_message(body: str | bytes, key_id: str | None) -> IntakeMessage:
    """Bind a message of the intake queue: a queue request with a `keyId`, or `key_id` from the message's attribute.

    Raises: InvalidRequest, where none is given, or the two differ.
    """
    around, request = _split_envelope(body, GATEWAY_FIELDS | {"keyid": "keyId"})
    given = around.pop("keyId", None)
    if not isinstance(given, str | None):
        raise invalid_field("InvalidType", "keyId", "'keyId' must be a string")
    if given and key_id and given != key_id:
        raise invalid_field("Conflict", "keyId", "'keyId' is one in the body and another in the message's attribute")
    named = given or key_id
    if not named:
        raise invalid_field("NotEmpty", "keyId", "'keyId' is required: the id of the key the job shall belong to")
    return IntakeMessage(named, _bind_inner_chat(around, request))


def bind_openai_queue_chat(body: str | bytes, options: Options) -> ModelRequest:
    """Bind a bare chat body to be queued; what stands around it, or in its headers, outranks what it holds."""
    inner = bind_chat(body, drop=("stream", "stream_options"))  # nobody waits to read a stream
    return replace(inner, options=options.with_defaults(inner.options))


def split_batch(body: str | bytes) -> list[bytes]:
    """The elements of a batch, each as its own text, at most MAX_BATCH. Raises: InvalidRequest."""
    text = _check_json(body)
    if not text.lstrip().startswith(b"["):
        raise invalid_field("InvalidType", "", "A batch is a JSON array of requests")
    found: list[bytes] = []
    for start, end in json_text.iterate_elements(text):
        if len(found) == MAX_BATCH:
            raise InvalidRequest(f"A batch holds at most {MAX_BATCH} requests")
        found.append(text[start:end])
    return found


def options_from_headers(headers: Mapping[str, str]) -> Options:
    """Our members as headers, lower-case: X-Ref-Id (or Idempotency-Key), X-Tag, X-Reply-To, X-Provider, X-Deadline."""
    given = {
        "refId": headers.get("x-ref-id") or headers.get("idempotency-key"),
        "tag": headers.get("x-tag"),
        "replyTo": headers.get("x-reply-to"),
        "provider": headers.get("x-provider"),
        "deadline": headers.get("x-deadline"),
    }
    return _parse_options({name: value for name, value in given.items() if value is not None})


def bind_job_reference(body: str | bytes) -> tuple[int | None, str | None]:
    """The job a request names, `{id?, refId?}`; 0 and nothing mean absent. Raises: InvalidRequest."""
    text = _check_json(body)
    own = _gateway_members(_root_members(text), {"id": "id", "jobid": "id", "refid": "refId"})
    given = {name: scalar_value(text, member) for name, member in own.items()}
    job_id, ref_id = given.get("id") or None, given.get("refId") or None
    if isinstance(job_id, str) and _is_number(job_id):
        job_id = int(job_id)
    if isinstance(job_id, bool) or not isinstance(job_id, int | None):
        raise invalid_field("InvalidType", "id", "'id' must be an integer")
    if not isinstance(ref_id, str | None):
        raise invalid_field("InvalidType", "refId", "'refId' must be a string")
    return job_id, ref_id


def bind_reply_to(body: str | bytes) -> str:
    """Where a sample callback shall go, `{replyTo}`. Raises: InvalidRequest."""
    text = _check_json(body)
    own = _gateway_members(_root_members(text), {fold_name("replyTo"): "replyTo"})
    given = _parse_options({name: scalar_value(text, member) for name, member in own.items()}).reply_to
    if not given:
        raise invalid_field("NotEmpty", "replyTo", "'replyTo' is required: the address to send a sample callback to")
    return given


def query_value(query: Mapping[str, str], name: str) -> str | None:
    """A value of the query string, its name in any case; an empty one means absent, as typed clients send it."""
    for key, value in query.items():
        if fold_name(key) == fold_name(name) and value:
            return value
    return None


def query_integer(query: Mapping[str, str], name: str) -> int | None:
    """A query value as a positive integer; 0 means absent, as typed clients send it. Raises: InvalidRequest."""
    value = query_value(query, name)
    if value is None:
        return None
    if not _is_number(value):
        raise invalid_field("InvalidType", name, f"'{name}' must be an integer")
    return int(value) or None


def parse_job_id(part: str) -> int:
    """The id of a job as a path has it; 0, which no job has, for what is no id."""
    return int(part) if _is_number(part) else 0


def _is_number(text: str) -> bool:
    """Whether these are digits, and no more of them than an id may have."""
    return text.isascii() and text.isdigit() and len(text) <= 18


def _bind_request(operation: str, body: str | bytes, schema: ObjectSchema, drop: Collection[str] = ()) -> ModelRequest:
    """A body as the provider will get it, what is read of it, and the members of ours that stood in it."""
    text = _check_json(body)
    root = _root_members(text)
    own = _gateway_members(root, GATEWAY_FIELDS)
    given = {name: scalar_value(text, member) for name, member in own.items()}
    options = _parse_options(given)
    bound = bind(text, root, schema, drop)
    unwanted = {own[name].key for name, value in given.items() if name != "provider" or isinstance(value, str | None)}
    unwanted |= bound.members.keys() & set(drop)
    edited = json_text.without_members(json_text.apply_edits(text, bound.edits), unwanted)
    stream = bound.members.get("stream")
    is_stream = stream is not None and "stream" not in drop and scalar_value(text, stream) is True
    return ModelRequest(operation, edited, str(scalar_value(text, bound.members["model"])), options, is_stream)


def _check_json(body: str | bytes) -> bytes:
    """A JSON text that is safe to edit. Raises: InvalidRequest."""
    text = json_text.encode_utf8(body)
    json_text.check_json(text)
    return text


def _split_envelope(body: str | bytes, names: Mapping[str, str]) -> tuple[dict[str, Any], bytes | None]:
    """The members we know of a queue request's outer object, and the text of the request in it."""
    text = _check_json(body)
    own = _gateway_members(_root_members(text), {**names, "request": "request"})
    request = own.pop("request", None)
    around = {name: scalar_value(text, member) for name, member in own.items()}
    return around, text[request.value_start : request.value_end] if request else None


def _bind_inner_chat(envelope: dict[str, Any], request: bytes | None) -> ModelRequest:
    if request is None:
        raise invalid_field("NotEmpty", "request", "'request' is required: the chat completion to run")
    return bind_openai_queue_chat(request, _parse_options(envelope))


def _root_members(text: bytes) -> list[Member]:
    """The members of the root object of a checked text. Raises: InvalidRequest, where it is none."""
    if not text.lstrip().startswith(b"{"):
        raise invalid_field("InvalidType", "", "The request body must be a JSON object")
    return json_text.parse_members(text)


def _gateway_members(root: list[Member], names: Mapping[str, str]) -> dict[str, Member]:
    """Our members of an object, by their names."""
    own: dict[str, Member] = {}
    for member in root:
        name = names.get(fold_name(member.key))
        if name in own:
            raise invalid_field("Duplicate", name, f"'{name}' is given more than once")
        if name:
            own[name] = member
    return own


def _parse_options(values: Mapping[str, Any]) -> Options:
    for name, longest in (("refId", MAX_NAME_CHARS), ("tag", MAX_NAME_CHARS), ("replyTo", MAX_REPLY_TO_CHARS)):
        value = values.get(name)
        if value is None:
            continue
        if not isinstance(value, str):
            raise invalid_field("InvalidType", name, f"'{name}' must be a string")
        if not 1 <= len(value) <= longest or _CONTROL.search(value):
            raise invalid_field(
                "InvalidLength", name, f"'{name}' must be 1 to {longest} characters, none a control character"
            )
    deadline = values.get("deadline")
    if isinstance(deadline, bool) or not isinstance(deadline, str | int | float | None):
        raise invalid_field("InvalidType", "deadline", "'deadline' must be a date or a number of seconds")
    provider = values.get("provider")
    return Options(
        ref_id=values.get("refId"),
        tag=values.get("tag"),
        reply_to=values.get("replyTo"),
        deadline=deadline,
        provider=provider if isinstance(provider, str) and provider else None,
    )


def _first_non_null(first: Any, second: Any) -> Any:
    return second if first is None else first
