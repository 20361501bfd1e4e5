"""Composition root: builds each function's objects from its environment, once per container.

Each function has a builder that creates and imports only what it needs: imports dominate cold starts. Nothing is built
at import, except on Lambda: a handler module ends with `preload`, so that building falls into the init phase.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from aiserver.api_keys import Authenticator
from aiserver.clock import SystemClock
from aiserver.http_api import HttpContext

if TYPE_CHECKING:
    from aiserver.artifacts import ArtifactUrls
    from aiserver.aws.messages import SqsDeadLetters
    from aiserver.routing.failover import Failover
    from aiserver.routing.selection import ProviderDirectory
    from aiserver.settings import ChatSettings, MediaSettings, QueueSettings, ReplySettings, StatusSettings
    from aiserver.usecases.callbacks import Redelivery, SampleCallback
    from aiserver.usecases.complete import Complete, ImageStore
    from aiserver.usecases.deliver_callback import DeliverCallback
    from aiserver.usecases.delivery_limiter import DeliveryLimiter
    from aiserver.usecases.enqueue import Enqueue
    from aiserver.usecases.generate_media import GenerateMedia
    from aiserver.usecases.image_outputs import ImageOutputs
    from aiserver.usecases.intake import Intake
    from aiserver.usecases.job_finished import JobFinishedNotifier
    from aiserver.usecases.media_outputs import ArtifactStore
    from aiserver.usecases.models import Models
    from aiserver.usecases.run_job import RunJob
    from aiserver.usecases.status import Status
    from aiserver.usecases.sweep import Sweep
    from aiserver.usecases.watch_job import WatchJob
    from aiserver.webhooks.client import WebhookClient

CLOCK = SystemClock()
Component = TypeVar("Component")
_components: dict[str, Any] = {}


@dataclass(frozen=True)
class ChatParts:
    http: HttpContext
    keys: Authenticator
    complete: "Complete"


@dataclass(frozen=True)
class MediaParts:
    http: HttpContext
    keys: Authenticator
    complete: "Complete"
    generate: "GenerateMedia"


@dataclass(frozen=True)
class QueueParts:
    http: HttpContext
    keys: Authenticator
    enqueue: "Enqueue"
    status: "Status"
    redelivery: "Redelivery"
    sample: "SampleCallback"


@dataclass(frozen=True)
class IntakeParts:
    intake: "Intake"
    dead_letters: "SqsDeadLetters"


@dataclass(frozen=True)
class StatusParts:
    http: HttpContext
    keys: Authenticator
    status: "Status"
    models: "Models"
    artifact_urls: "ArtifactUrls"
    artifacts: "ArtifactStore"


@dataclass(frozen=True)
class EventsParts:
    http: HttpContext
    keys: Authenticator
    status: "Status"
    watch: "WatchJob"


def preload(build: Callable[[], object]) -> None:
    """On Lambda, build now; elsewhere, on first use."""
    if "AWS_LAMBDA_FUNCTION_NAME" in os.environ:
        build()


def build_once(build: Callable[[], Component]) -> Callable[[], Component]:
    """`build`, with its first result cached until `reset_for_tests`."""

    def get() -> Component:
        if build.__name__ not in _components:
            _components[build.__name__] = build()
        return _components[build.__name__]

    return get


def override_for_tests(**components: object) -> None:
    """Replace components, by their builders' names, for handlers. For tests."""
    _components.update(components)


def reset_for_tests() -> None:
    """Close and discard all components: they are built again on next use. For tests."""
    if "http" in _components:
        _components["http"].close()
    _components.clear()


@build_once
def chat() -> ChatParts:
    from aiserver.settings import ChatSettings

    settings = ChatSettings.read()
    return ChatParts(_streaming_http(settings), *_complete(settings))


@build_once
def media() -> MediaParts:
    from aiserver.aws.artifacts import S3Artifacts
    from aiserver.settings import MediaSettings
    from aiserver.usecases.generate_media import GenerateMedia
    from aiserver.usecases.sync_images import SyncImages

    settings = MediaSettings.read()
    artifacts, urls = S3Artifacts(settings.bodies_bucket, _client("s3")), _artifact_urls(settings)
    keys, complete = _complete(settings, SyncImages(_image_outputs(artifacts), urls))
    generate = GenerateMedia(complete, artifacts, urls, CLOCK)
    return MediaParts(_streaming_http(settings), keys, complete, generate)


@build_once
def queue() -> QueueParts:
    from aiserver.aws.config import DynamoConfig
    from aiserver.aws.messages import SqsMessageSender
    from aiserver.settings import QueueSettings
    from aiserver.usecases.callbacks import Redelivery, SampleCallback
    from aiserver.usecases.status import Status
    from aiserver.webhooks.client import WebhookClient

    settings = QueueSettings.read()
    config = DynamoConfig(settings.config_table, _client("dynamodb"))
    jobs = _jobs(settings.jobs_table, settings.bodies_bucket)
    messages = SqsMessageSender(
        _client("sqs"),
        hosted=settings.hosted_queue_url,
        gpu=settings.gpu_queue_url,
        callback=settings.callback_queue_url,
    )
    webhook_client = WebhookClient(unsafe=settings.unsafe_callbacks)
    return QueueParts(
        HttpContext(CLOCK, settings.cors_origins, settings.public_base_url),
        Authenticator(config, CLOCK),
        _enqueue(jobs, messages, config, webhook_client, settings.settled_job_days),
        Status(jobs, CLOCK, time.sleep),
        Redelivery(jobs, messages, CLOCK),
        SampleCallback(config, webhook_client, _delivery_limiter(settings), CLOCK),
    )


@build_once
def intake() -> IntakeParts:
    from aiserver.aws.config import DynamoConfig
    from aiserver.aws.messages import SqsDeadLetters, SqsMessageSender
    from aiserver.settings import IntakeSettings
    from aiserver.usecases.intake import Intake
    from aiserver.webhooks.client import WebhookClient

    settings = IntakeSettings.read()
    config = DynamoConfig(settings.config_table, _client("dynamodb"))
    messages = SqsMessageSender(_client("sqs"), hosted=settings.hosted_queue_url, gpu=settings.gpu_queue_url)
    jobs = _jobs(settings.jobs_table, settings.bodies_bucket)
    enqueue = _enqueue(
        jobs, messages, config, WebhookClient(unsafe=settings.unsafe_callbacks), settings.settled_job_days
    )
    keys = Authenticator(config, CLOCK)
    return IntakeParts(
        Intake(enqueue, keys, key_ids=settings.intake_key_ids, base_url=settings.public_base_url),
        SqsDeadLetters(_client("sqs"), settings.intake_dead_letter_queue_url),
    )


@build_once
def worker() -> "RunJob":
    from aiserver.aws.artifacts import S3Artifacts
    from aiserver.aws.config import DynamoConfig
    from aiserver.aws.messages import SqsMessageSender
    from aiserver.settings import WorkerSettings
    from aiserver.usecases.run_job import RunJob

    settings = WorkerSettings.read()
    directory, failover = _routing(DynamoConfig(settings.config_table, _client("dynamodb")), settings.jobs_table)
    return RunJob(
        _jobs(settings.jobs_table, settings.bodies_bucket),
        SqsMessageSender(_client("sqs"), hosted=settings.hosted_queue_url, gpu=settings.gpu_queue_url),
        directory,
        failover,
        _image_outputs(S3Artifacts(settings.bodies_bucket, _client("s3"))),
        CLOCK,
        sleep=time.sleep,
        settled_days=settings.settled_job_days,
        lease_margin_s=settings.lease_margin_seconds,
        logs_tags=settings.log_tags,
    )


@build_once
def status() -> StatusParts:
    from aiserver.aws.artifacts import S3Artifacts
    from aiserver.aws.config import DynamoConfig
    from aiserver.routing.selection import ProviderDirectory
    from aiserver.settings import StatusSettings
    from aiserver.usecases.models import Models
    from aiserver.usecases.status import Status

    settings = StatusSettings.read()
    config = DynamoConfig(settings.config_table, _client("dynamodb"))
    urls = _artifact_urls(settings)
    return StatusParts(
        HttpContext(CLOCK, settings.cors_origins, settings.public_base_url),
        Authenticator(config, CLOCK),
        Status(_jobs(settings.jobs_table, settings.bodies_bucket), CLOCK, time.sleep, urls),
        Models(ProviderDirectory(config.providers, CLOCK), config.model_listings),
        urls,
        S3Artifacts(settings.bodies_bucket, _client("s3")),
    )


@build_once
def events() -> EventsParts:
    from aiserver.aws.config import DynamoConfig
    from aiserver.aws.jobs import DynamoJobs
    from aiserver.settings import EventsSettings
    from aiserver.usecases.status import Status
    from aiserver.usecases.watch_job import WatchJob

    settings = EventsSettings.read()
    jobs = DynamoJobs(settings.jobs_table, "", _client("dynamodb"), None, CLOCK.job_id)
    return EventsParts(
        HttpContext(CLOCK, settings.cors_origins, streams=settings.streams),
        Authenticator(DynamoConfig(settings.config_table, _client("dynamodb")), CLOCK),
        Status(jobs, CLOCK, time.sleep),
        WatchJob(jobs, CLOCK, time.sleep),
    )


@build_once
def finished() -> "JobFinishedNotifier":
    from aiserver.aws.messages import EventBridgePublisher, SqsMessageSender
    from aiserver.settings import FinishedSettings
    from aiserver.usecases.job_finished import JobFinishedNotifier

    settings = FinishedSettings.read()
    messages = SqsMessageSender(_client("sqs"), callback=settings.callback_queue_url)
    return JobFinishedNotifier(messages, EventBridgePublisher(settings.event_bus, _client("events")))


@build_once
def reply() -> "DeliverCallback":
    from aiserver.aws.config import DynamoConfig
    from aiserver.aws.messages import SqsMessageSender
    from aiserver.settings import ReplySettings
    from aiserver.usecases.deliver_callback import DeliverCallback
    from aiserver.webhooks.client import WebhookClient

    settings = ReplySettings.read()
    return DeliverCallback(
        _jobs(settings.jobs_table, settings.bodies_bucket),
        SqsMessageSender(_client("sqs"), callback=settings.callback_queue_url),
        DynamoConfig(settings.config_table, _client("dynamodb")),
        WebhookClient(unsafe=settings.unsafe_callbacks),
        _delivery_limiter(settings),
        CLOCK,
        settled_days=settings.settled_job_days,
        lease_margin_s=settings.lease_margin_seconds,
        urls=_artifact_urls(settings),
    )


@build_once
def sweep() -> "Sweep":
    from aiserver.aws.circuits import DynamoCircuits
    from aiserver.aws.jobs import DynamoJobs
    from aiserver.aws.messages import SqsMessageSender
    from aiserver.settings import SweepSettings
    from aiserver.usecases.sweep import Sweep

    settings = SweepSettings.read()
    messages = SqsMessageSender(
        _client("sqs"),
        hosted=settings.hosted_queue_url,
        gpu=settings.gpu_queue_url,
        callback=settings.callback_queue_url,
    )
    jobs = DynamoJobs(settings.jobs_table, "", _client("dynamodb"), None, CLOCK.job_id)
    circuits = DynamoCircuits(settings.jobs_table, _client("dynamodb", is_vital=False), CLOCK)
    return Sweep(jobs, messages, circuits, CLOCK, settled_days=settings.settled_job_days)


def _image_outputs(artifacts: "ArtifactStore") -> "ImageOutputs":
    from aiserver.providers.downloads import Downloads
    from aiserver.usecases.image_outputs import ImageOutputs

    return ImageOutputs(artifacts, Downloads(), CLOCK)


def _artifact_urls(settings: "MediaSettings | StatusSettings | ReplySettings") -> "ArtifactUrls":
    from aiserver.artifacts import ArtifactUrls
    from aiserver.aws.config import DynamoConfig

    config = DynamoConfig(settings.config_table, _client("dynamodb"))
    return ArtifactUrls(config, CLOCK, hours=settings.artifact_url_hours)


def _streaming_http(settings: "ChatSettings") -> HttpContext:
    return HttpContext(CLOCK, settings.cors_origins, settings.public_base_url, settings.streams)


def _complete(settings: "ChatSettings", images: "ImageStore | None" = None) -> "tuple[Authenticator, Complete]":
    from aiserver.aws.config import DynamoConfig
    from aiserver.usecases.complete import Complete
    from aiserver.usecases.sync_records import SyncRecords

    config = DynamoConfig(settings.config_table, _client("dynamodb"))
    directory, failover = _routing(config, settings.jobs_table)
    jobs = _jobs(settings.jobs_table, settings.bodies_bucket)
    records = SyncRecords(
        jobs,
        CLOCK,
        time.sleep,
        settled_days=settings.settled_job_days,
        lease_margin_s=settings.lease_margin_seconds,
    )
    complete = Complete(jobs, directory, failover, records, CLOCK, images, logs_tags=settings.log_tags)
    return Authenticator(config, CLOCK), complete


def _jobs(table: str, bucket: str) -> Any:
    from aiserver.aws.jobs import DynamoJobs

    return DynamoJobs(table, bucket, _client("dynamodb"), _client("s3"), CLOCK.job_id)


def _delivery_limiter(settings: "QueueSettings | ReplySettings") -> "DeliveryLimiter":
    from aiserver.aws.leases import DynamoConcurrencyLeases
    from aiserver.usecases.delivery_limiter import DeliveryLimiter

    leases = DynamoConcurrencyLeases(settings.jobs_table, _client("dynamodb"))
    return DeliveryLimiter(leases, per_key=settings.callbacks_per_key, per_receiver=settings.callbacks_per_receiver)


def _enqueue(jobs: Any, messages: Any, config: Any, webhook_client: "WebhookClient", settled_days: int) -> "Enqueue":
    from aiserver.providers.registry import AdapterRegistry
    from aiserver.routing.selection import ProviderDirectory
    from aiserver.usecases.enqueue import Enqueue

    return Enqueue(
        jobs,
        messages,
        ProviderDirectory(config.providers, CLOCK),
        AdapterRegistry(CLOCK, _bedrock),
        CLOCK,
        check_reply_to=webhook_client.check_url,
        settled_days=settled_days,
    )


def _routing(config: Any, jobs_table: str) -> "tuple[ProviderDirectory, Failover]":
    from aiserver.aws.circuits import DynamoCircuits
    from aiserver.aws.leases import DynamoConcurrencyLeases
    from aiserver.aws.secrets import SsmSecrets
    from aiserver.circuit_breaker.breaker import CircuitBreaker
    from aiserver.providers.dispatch import Dispatcher
    from aiserver.providers.registry import AdapterRegistry
    from aiserver.routing.admission import AdmissionControl
    from aiserver.routing.failover import Failover
    from aiserver.routing.selection import ProviderDirectory

    optional_client = _client("dynamodb", is_vital=False)
    leases = DynamoConcurrencyLeases(jobs_table, optional_client)
    breaker = CircuitBreaker(DynamoCircuits(jobs_table, optional_client, CLOCK), CLOCK)
    adapters = AdapterRegistry(CLOCK, _bedrock)
    adapters.adapter_for("openai")  # used by most providers; the others are built on first use
    failover = Failover(
        Dispatcher(http(), adapters, CLOCK),
        AdmissionControl(CLOCK, leases, breaker),
        SsmSecrets(_client("ssm"), CLOCK),
        CLOCK,
    )
    return ProviderDirectory(config.providers, CLOCK), failover


def _bedrock() -> Any:
    from aiserver.aws.bedrock import bedrock_transport

    return bedrock_transport(_session())


@build_once
def http() -> Any:
    """The HTTP client for all providers."""
    from aiserver.providers.http import create_client

    return create_client()


@cache
def _client(service: str, *, is_vital: bool = True) -> Any:
    """One client per service, thread-safe. AWS responds in milliseconds: a call that hangs is retried.

    Calls of a client that is not vital end after 3 s: the caller waits for them and continues without.
    """
    from botocore.config import Config

    retries: Any = {"mode": "standard", "total_max_attempts": 4 if is_vital else 2}
    # By default boto3 presigns S3 links with signature version 2, which buckets created since 2020 reject, and for the
    # global host, which redirects callers of a new bucket; the embedded cloud's endpoint has no virtual hosts.
    config = Config(
        connect_timeout=2 if is_vital else 1,
        read_timeout=10 if service == "s3" else 3 if is_vital else 1,
        retries=retries,
        max_pool_connections=50,
        signature_version="s3v4" if service == "s3" else None,
        s3={"addressing_style": "auto" if "AWS_ENDPOINT_URL" in os.environ else "virtual"},
    )
    return _session().client(service, config=config)


@cache
def _session() -> Any:
    """One session for all clients, so that each service's definition is loaded once."""
    import boto3

    return boto3.session.Session()
