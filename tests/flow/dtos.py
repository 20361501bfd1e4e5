# ruff: noqa: UP045
"""AI Server's request DTOs as its typed Python clients use them: the output of `x py`, reduced to the fields used here.

The types are Optional because the client (0.1.15) does not support `X | None`.
"""

from dataclasses import dataclass, field
from typing import Any, Optional

from dataclasses_json import LetterCase, Undefined, dataclass_json
from servicestack import IGet, IPost, IReturn, ResponseStatus

dataclass_dto = dataclass_json(letter_case=LetterCase.CAMEL, undefined=Undefined.EXCLUDE)


@dataclass_dto
@dataclass
class OpenAiMessage:
    content: Optional[str] = None
    role: Optional[str] = None


@dataclass_dto
@dataclass
class OpenAiResponseFormat:
    type: Optional[str] = None


@dataclass_dto
@dataclass
class Choice:
    index: int = 0
    finish_reason: Optional[str] = None
    message: Optional[OpenAiMessage] = None


@dataclass_dto
@dataclass
class OpenAiUsage:
    completion_tokens: int = 0
    prompt_tokens: int = 0
    total_tokens: int = 0


@dataclass_dto
@dataclass
class OpenAiChatResponse:
    id: Optional[str] = None
    model: Optional[str] = None
    choices: list[Choice] = field(default_factory=list)
    usage: Optional[OpenAiUsage] = None
    response_status: Optional[ResponseStatus] = None


@dataclass_dto
@dataclass
class OpenAiChat:
    messages: list[OpenAiMessage] = field(default_factory=list)
    model: Optional[str] = None
    max_tokens: Optional[int] = None
    temperature: Optional[float] = None
    top_p: Optional[float] = None
    response_format: Optional[OpenAiResponseFormat] = None


@dataclass_dto
@dataclass
class OpenAiChatCompletion(OpenAiChat, IReturn[OpenAiChatResponse], IPost):
    ref_id: Optional[str] = None
    provider: Optional[str] = None
    tag: Optional[str] = None


@dataclass_dto
@dataclass
class QueueOpenAiChatResponse:
    id: int = 0
    ref_id: Optional[str] = None
    status_url: Optional[str] = None
    response_status: Optional[ResponseStatus] = None


@dataclass_dto
@dataclass
class QueueOpenAiChatCompletion(IReturn[QueueOpenAiChatResponse], IPost):
    ref_id: Optional[str] = None
    provider: Optional[str] = None
    reply_to: Optional[str] = None
    tag: Optional[str] = None
    request: Optional[OpenAiChat] = None


@dataclass_dto
@dataclass
class GetOpenAiChatStatusResponse:
    job_id: int = 0
    ref_id: Optional[str] = None
    job_state: Optional[str] = None
    status: Optional[str] = None
    result: Optional[OpenAiChatResponse] = None
    chat_response: Optional[OpenAiChatResponse] = None
    response_status: Optional[ResponseStatus] = None


@dataclass_dto
@dataclass
class GetOpenAiChatStatus(IReturn[GetOpenAiChatStatusResponse], IGet):
    job_id: int = 0
    ref_id: Optional[str] = None


@dataclass_dto
@dataclass
class BackgroundJob:
    id: int = 0
    ref_id: Optional[str] = None
    state: Optional[str] = None
    request_body: Optional[str] = None
    response_body: Optional[str] = None


@dataclass_dto
@dataclass
class WaitForOpenAiChatResponse:
    result: Optional[BackgroundJob] = None
    response_status: Optional[ResponseStatus] = None


@dataclass_dto
@dataclass
class WaitForOpenAiChat(IReturn[WaitForOpenAiChatResponse], IGet):
    id: int = 0
    ref_id: Optional[str] = None


@dataclass_dto
@dataclass
class ActiveAiModelsResponse:
    results: list[str] = field(default_factory=list)
    response_status: Optional[ResponseStatus] = None


@dataclass_dto
@dataclass
class ActiveAiModels(IReturn[ActiveAiModelsResponse], IGet):
    provider: Optional[str] = None


@dataclass_dto
@dataclass
class ChatWithUnknownMember(OpenAiChat, IReturn[OpenAiChatResponse], IPost):
    """A DTO of a newer client, with a member that the gateway does not know."""

    brand_new: Optional[dict[str, Any]] = None
