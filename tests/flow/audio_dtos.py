# ruff: noqa: UP045
"""AI Server's DTOs for audio as its typed Python clients use them: the output of `x py`, reduced as in dtos.py."""

from dataclasses import dataclass, field
from typing import Optional

from servicestack import IGet, IPost, IReturn, ResponseStatus

from tests.flow.dtos import dataclass_dto


@dataclass_dto
@dataclass
class ArtifactOutput:
    url: Optional[str] = None
    file_name: Optional[str] = None
    provider: Optional[str] = None


@dataclass_dto
@dataclass
class TextOutput:
    text: Optional[str] = None


@dataclass_dto
@dataclass
class ArtifactGenerationResponse:
    results: list[ArtifactOutput] = field(default_factory=list)
    duration: Optional[str] = None
    response_status: Optional[ResponseStatus] = None


@dataclass_dto
@dataclass
class TextGenerationResponse:
    results: list[TextOutput] = field(default_factory=list)
    duration: Optional[str] = None
    response_status: Optional[ResponseStatus] = None


@dataclass_dto
@dataclass
class QueueGenerationResponse:
    job_id: int = 0
    ref_id: Optional[str] = None
    job_state: Optional[str] = None
    status: Optional[str] = None
    status_url: Optional[str] = None
    response_status: Optional[ResponseStatus] = None


@dataclass_dto
@dataclass
class GetArtifactGenerationStatusResponse:
    job_id: int = 0
    ref_id: Optional[str] = None
    job_state: Optional[str] = None
    status: Optional[str] = None
    results: list[ArtifactOutput] = field(default_factory=list)
    response_status: Optional[ResponseStatus] = None


@dataclass_dto
@dataclass
class GetTextGenerationStatusResponse:
    job_id: int = 0
    ref_id: Optional[str] = None
    job_state: Optional[str] = None
    status: Optional[str] = None
    results: list[TextOutput] = field(default_factory=list)
    response_status: Optional[ResponseStatus] = None


@dataclass_dto
@dataclass
class SpeechToText(IReturn[TextGenerationResponse], IPost):
    model: Optional[str] = None
    ref_id: Optional[str] = None
    tag: Optional[str] = None


@dataclass_dto
@dataclass
class TextToSpeech(IReturn[ArtifactGenerationResponse], IPost):
    input: Optional[str] = None
    model: Optional[str] = None
    seed: Optional[int] = None
    ref_id: Optional[str] = None
    tag: Optional[str] = None


@dataclass_dto
@dataclass
class QueueSpeechToText(IReturn[QueueGenerationResponse], IPost):
    ref_id: Optional[str] = None
    reply_to: Optional[str] = None
    tag: Optional[str] = None
    state: Optional[str] = None


@dataclass_dto
@dataclass
class QueueTextToSpeech(IReturn[QueueGenerationResponse], IPost):
    text: Optional[str] = None
    seed: Optional[int] = None
    model: Optional[str] = None
    ref_id: Optional[str] = None
    reply_to: Optional[str] = None
    tag: Optional[str] = None
    state: Optional[str] = None


@dataclass_dto
@dataclass
class GetTextGenerationStatus(IReturn[GetTextGenerationStatusResponse], IGet):
    job_id: int = 0
    ref_id: Optional[str] = None


@dataclass_dto
@dataclass
class GetArtifactGenerationStatus(IReturn[GetArtifactGenerationStatusResponse], IGet):
    job_id: int = 0
    ref_id: Optional[str] = None


@dataclass_dto
@dataclass
class TextToSpeechVoice:
    id: Optional[str] = None
    model: Optional[str] = None


@dataclass_dto
@dataclass
class QueryTextToSpeechVoicesResponse:
    offset: int = 0
    total: int = 0
    results: list[TextToSpeechVoice] = field(default_factory=list)
    response_status: Optional[ResponseStatus] = None


@dataclass_dto
@dataclass
class QueryTextToSpeechVoices(IReturn[QueryTextToSpeechVoicesResponse], IGet):
    skip: Optional[int] = None
    take: Optional[int] = None
