"""What each function reads from its environment: one typed model a function, checked before the first request.

The names are the template's; tests/shape holds the two together.
"""

import os
from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict


def _listed(value: str) -> list[str]:
    return [one.strip() for one in value.split(",") if one.strip()]


Listed = Annotated[list[str], BeforeValidator(_listed)]


class Settings(BaseModel):
    """Fields are environment variables of the same name in capitals. Raises at start what is missing or wrong."""

    model_config = ConfigDict(frozen=True, alias_generator=str.upper, extra="ignore")

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> Self:
        return cls.model_validate(dict(environment))


class Http(Settings):
    config_table: str
    cors_origins: Listed


class ChatSettings(Http):
    streams: bool
    jobs_table: str
    bodies_bucket: str
    settled_job_days: int
    public_base_url: str


class QueueSettings(Http):
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
    intake_key_ids: Listed
    settled_job_days: int
    public_base_url: str
    unsafe_callbacks: bool


class WorkerSettings(Settings):
    config_table: str
    jobs_table: str
    bodies_bucket: str
    hosted_queue_url: str
    gpu_queue_url: str
    settled_job_days: int
    lease_margin_seconds: int


class StatusSettings(Http):
    jobs_table: str
    bodies_bucket: str
    public_base_url: str


class EventsSettings(Http):
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


class SweepSettings(Settings):
    jobs_table: str
    hosted_queue_url: str
    gpu_queue_url: str
    callback_queue_url: str
    settled_job_days: int
