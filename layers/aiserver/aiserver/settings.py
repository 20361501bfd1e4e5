"""The environment variables of each function: one typed model per function, validated before the first request.

template.yaml sets them; tests/shape checks that both agree.
"""

import os
from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict


def _split_list(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]


CommaSeparated = Annotated[list[str], BeforeValidator(_split_list)]


class Settings(BaseModel):
    """Fields are environment variables of the same name in capitals.

    Raises: ValidationError, at startup, when one is missing or invalid.
    """

    model_config = ConfigDict(frozen=True, alias_generator=str.upper, extra="ignore")

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> Self:
        return cls.model_validate(dict(environment))


class HttpSettings(Settings):
    config_table: str
    cors_origins: CommaSeparated


class ChatSettings(HttpSettings):
    streams: bool
    log_tags: bool
    jobs_table: str
    bodies_bucket: str
    settled_job_days: int
    lease_margin_seconds: int
    public_base_url: str


class MediaSettings(ChatSettings):
    """Those of chat, which also calls providers and records jobs, and the lifetime of artifacts' URLs."""

    artifact_url_hours: int


class QueueSettings(HttpSettings):
    jobs_table: str
    bodies_bucket: str
    hosted_queue_url: str
    gpu_queue_url: str
    callback_queue_url: str
    callbacks_per_key: int
    callbacks_per_receiver: int
    settled_job_days: int
    public_base_url: str
    unsafe_callbacks: bool


class IntakeSettings(Settings):
    jobs_table: str
    config_table: str
    bodies_bucket: str
    hosted_queue_url: str
    gpu_queue_url: str
    intake_dead_letter_queue_url: str
    intake_key_ids: CommaSeparated
    settled_job_days: int
    public_base_url: str
    unsafe_callbacks: bool


class WorkerSettings(Settings):
    log_tags: bool
    config_table: str
    jobs_table: str
    bodies_bucket: str
    hosted_queue_url: str
    gpu_queue_url: str
    settled_job_days: int
    lease_margin_seconds: int


class StatusSettings(HttpSettings):
    jobs_table: str
    bodies_bucket: str
    public_base_url: str
    artifact_url_hours: int


class EventsSettings(HttpSettings):
    streams: bool
    jobs_table: str


class FinishedSettings(Settings):
    callback_queue_url: str
    event_bus: str


class ReplySettings(Settings):
    jobs_table: str
    config_table: str
    bodies_bucket: str
    callback_queue_url: str
    settled_job_days: int
    lease_margin_seconds: int
    callbacks_per_key: int
    callbacks_per_receiver: int
    unsafe_callbacks: bool
    artifact_url_hours: int


class SweepSettings(Settings):
    jobs_table: str
    hosted_queue_url: str
    gpu_queue_url: str
    callback_queue_url: str
    settled_job_days: int
