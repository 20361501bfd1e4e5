# ruff: noqa: UP045
"""AI Server's DTOs for images as its typed Python clients use them: the output of `x py`, reduced as in dtos.py."""

from dataclasses import dataclass, field
from typing import Optional

from servicestack import IGet, IPost, IReturn, ResponseStatus

from tests.flow.audio_dtos import ArtifactGenerationResponse, QueueGenerationResponse, TextGenerationResponse
from tests.flow.dtos import dataclass_dto


@dataclass_dto
@dataclass
class TextToImage(IReturn[ArtifactGenerationResponse], IPost):
    positive_prompt: Optional[str] = None
    negative_prompt: Optional[str] = None
    width: Optional[int] = None
    height: Optional[int] = None
    batch_size: Optional[int] = None
    model: Optional[str] = None
    seed: Optional[int] = None
    ref_id: Optional[str] = None
    tag: Optional[str] = None


@dataclass_dto
@dataclass
class ImageToImage(IReturn[ArtifactGenerationResponse], IPost):
    positive_prompt: Optional[str] = None
    negative_prompt: Optional[str] = None
    denoise: Optional[float] = None
    batch_size: Optional[int] = None
    seed: Optional[int] = None
    model: Optional[str] = None
    ref_id: Optional[str] = None
    tag: Optional[str] = None


@dataclass_dto
@dataclass
class ImageWithMask(IReturn[ArtifactGenerationResponse], IPost):
    positive_prompt: Optional[str] = None
    negative_prompt: Optional[str] = None
    denoise: Optional[float] = None
    seed: Optional[int] = None
    model: Optional[str] = None
    ref_id: Optional[str] = None
    tag: Optional[str] = None


@dataclass_dto
@dataclass
class ImageToText(IReturn[TextGenerationResponse], IPost):
    model: Optional[str] = None
    prompt: Optional[str] = None
    ref_id: Optional[str] = None
    tag: Optional[str] = None


@dataclass_dto
@dataclass
class QueueTextToImage(IReturn[QueueGenerationResponse], IPost):
    positive_prompt: Optional[str] = None
    negative_prompt: Optional[str] = None
    width: Optional[int] = None
    height: Optional[int] = None
    batch_size: Optional[int] = None
    model: Optional[str] = None
    seed: Optional[int] = None
    ref_id: Optional[str] = None
    reply_to: Optional[str] = None
    tag: Optional[str] = None
    state: Optional[str] = None


@dataclass_dto
@dataclass
class QueueImageToImage(IReturn[QueueGenerationResponse], IPost):
    positive_prompt: Optional[str] = None
    negative_prompt: Optional[str] = None
    denoise: Optional[float] = None
    batch_size: Optional[int] = None
    seed: Optional[int] = None
    ref_id: Optional[str] = None
    reply_to: Optional[str] = None
    tag: Optional[str] = None
    state: Optional[str] = None


@dataclass_dto
@dataclass
class QueueImageWithMask(IReturn[QueueGenerationResponse], IPost):
    positive_prompt: Optional[str] = None
    negative_prompt: Optional[str] = None
    denoise: Optional[float] = None
    seed: Optional[int] = None
    ref_id: Optional[str] = None
    reply_to: Optional[str] = None
    tag: Optional[str] = None
    state: Optional[str] = None


@dataclass_dto
@dataclass
class QueueImageToText(IReturn[QueueGenerationResponse], IPost):
    ref_id: Optional[str] = None
    reply_to: Optional[str] = None
    tag: Optional[str] = None
    state: Optional[str] = None


@dataclass_dto
@dataclass
class MediaModelEntry:
    key: Optional[str] = None
    value: Optional[str] = None


@dataclass_dto
@dataclass
class ActiveMediaModelsResponse:
    results: list[MediaModelEntry] = field(default_factory=list[MediaModelEntry])
    response_status: Optional[ResponseStatus] = None


@dataclass_dto
@dataclass
class ActiveMediaModels(IReturn[ActiveMediaModelsResponse], IGet):
    pass
