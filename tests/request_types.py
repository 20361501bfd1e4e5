"""Field types of a chat request as pydantic models: the reference for the check that builds no objects."""

from typing import Annotated, Any, Required

from pydantic import BaseModel, ConfigDict, Field, ValidationError, with_config
from typing_extensions import TypedDict  # pydantic requires this one before Python 3.12

from aiserver.limits import MAX_MESSAGES, MAX_NAME_CHARS

_STRICT = ConfigDict(strict=True, extra="ignore")

Text = Annotated[str, Field(min_length=1)]
Model = Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARS)]  # stored with the job, which must stay small


@with_config(_STRICT)
class _Message(TypedDict, total=False):
    role: Required[Text]
    content: str | list[dict[str, Any]] | None
    name: str | None
    tool_calls: list[dict[str, Any]] | None
    tool_call_id: str | None


class _StreamOptions(BaseModel):
    model_config = _STRICT
    include_usage: bool | None = None


class ChatBody(BaseModel):
    """The fields whose types are checked; the provider validates ranges."""

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


def wrong_members(value: Any) -> set[str]:
    """Return the names of top-level fields that are missing or have an invalid type."""
    try:
        ChatBody.model_validate(value)
    except ValidationError as error:
        return {str(problem["loc"][0]) for problem in error.errors(include_url=False)}
    return set()
