"""Which members of a request are checked before a provider is asked, and how a wrong one is named."""

import re
from typing import Annotated, Any, Required, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, with_config
from typing_extensions import TypedDict  # pydantic reads no other before Python 3.12

from aiserver.errors import FieldError, InvalidRequest
from aiserver.limits import MAX_MESSAGES, MAX_NAME_CHARS, MAX_PROBLEMS

_STRICT = ConfigDict(strict=True, extra="ignore")

Text = Annotated[str, Field(min_length=1)]
Model = Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARS)]  # kept with the job, which stays small


@with_config(_STRICT)
class _Message(TypedDict, total=False):
    """Not a model, which would take three times as long: there may be thousands."""

    role: Required[Text]
    content: str | list[dict[str, Any]] | None
    name: str | None
    tool_calls: list[dict[str, Any]] | None
    tool_call_id: str | None


class _StreamOptions(BaseModel):
    model_config = _STRICT
    include_usage: bool | None = None


class ChatBody(BaseModel):
    """The members whose types we check; ranges are the provider's to judge."""

    model_config = _STRICT
    model: Model
    messages: Annotated[list[_Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    frequency_penalty: float | None = None
    logit_bias: dict[str, Any] | None = None
    logprobs: bool | None = None
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    n: int | None = None
    parallel_tool_calls: bool | None = None
    presence_penalty: float | None = None
    reasoning_effort: str | None = None
    response_format: dict[str, Any] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    temperature: float | None = None
    tool_choice: str | dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    top_logprobs: int | None = None
    top_p: float | None = None
    user: str | None = None


class EmbeddingsBody(BaseModel):
    """As for a chat."""

    model_config = _STRICT
    model: Model
    input: Text | Annotated[list[Any], Field(min_length=1)]
    dimensions: int | None = None
    encoding_format: str | None = None
    user: str | None = None


class ResponsesBody(BaseModel):
    """As for a chat; what to answer may stand in `input` or be kept at the provider, by `prompt` or an earlier id."""

    model_config = _STRICT
    model: Model
    stream: bool | None = None


Checked = TypeVar("Checked", bound=BaseModel)


def check(value: Any, body: type[Checked]) -> Checked:
    """The members we read of a body. Raises: InvalidRequest, with every wrong member listed."""
    try:
        return body.model_validate(value)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)[:MAX_PROBLEMS]
        fields: dict[str, FieldError] = {}
        for problem in problems:
            # a union reports each of its members: `content.str`, `content.list[…]`; the first tells enough
            where = tuple(part for part in problem["loc"] if not isinstance(part, str) or _is_member(part))
            empty = problem["type"] in ("missing", "too_short", "string_too_short")
            message = f"'{_path(where)}' " + (
                "must not be empty" if empty else problem["msg"].replace("Input should", "should")
            )
            fields.setdefault(_path(where), FieldError("NotEmpty" if empty else "InvalidType", _pascal(where), message))
        param, first = next(iter(fields.items()))
        raise InvalidRequest(first.message, param=param, fields=tuple(fields.values())) from None


def _is_member(part: str) -> bool:
    return bool(re.fullmatch(r"[a-z_]+", part)) and part not in ("str", "dict", "list", "int", "float", "bool")


def _path(where: tuple[str | int, ...]) -> str:
    """`messages[0].role`: where OpenAI's `param` points."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where).lstrip(".")


def _pascal(where: tuple[str | int, ...]) -> str:
    """`Messages[0].Role`: the same place as AI Server's `fieldName`."""
    words = [
        part if isinstance(part, int) else "".join(w[:1].upper() + w[1:] for w in part.split("_")) for part in where
    ]
    return _path(tuple(words))


def invalid(error_code: str, name: str, message: str) -> InvalidRequest:
    """A refusal that names the member at fault, by its path: `messages[0].role`."""
    field = FieldError(error_code, _pascal(tuple(name.split("."))), message)
    return InvalidRequest(message, param=name or None, fields=(field,))
