"""In-memory ports for tests. They pass the same contract tests as the AWS adapters."""

import itertools
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from aiserver.api_keys import ApiKey, WebhookSecrets
from aiserver.artifacts import ArtifactSecrets, artifact_key
from aiserver.circuit_breaker.circuit import Circuit
from aiserver.clock import job_id
from aiserver.jobs.job import Job
from aiserver.jobs.ports import ANY_JOB, ConditionFailed, CreateResult, JobFilter, JobPage
from aiserver.jobs.states import CallbackState, JobState
from aiserver.jobs.transitions import AttributeValue, Condition, Transition, is_applied, resolve_value
from aiserver.providers.call import Upstream
from aiserver.providers.downloads import DownloadFailed
from aiserver.wire.media_types import is_file


class FakeClock:
    """A clock that moves only when a test advances it."""

    def __init__(self, now_ms: int = 1_800_000_000_000) -> None:
        self.now = now_ms
        self.chance = 0.5
        self._sequence = itertools.count(1)  # thread-safe: each thread gets another number

    def now_ms(self) -> int:
        return self.now

    def job_id(self) -> int:
        return job_id(self.now, next(self._sequence) % 4096)

    def token(self) -> str:
        return f"{next(self._sequence):032x}"

    def fraction(self) -> float:
        return self.chance

    def advance(self, seconds: float) -> None:
        self.now += round(seconds * 1000)


def result_location(job: Job, result: bytes, content_type: str | None) -> str:
    return artifact_key(job.owner, job.created_at, result, content_type or "") if is_file(content_type) else "item"


class FakeArtifactSecrets:
    """artifacts.ArtifactSecretStore."""

    def __init__(self) -> None:
        self.stored: ArtifactSecrets | None = None

    def artifact_secrets(self) -> ArtifactSecrets | None:
        return self.stored

    def replace_artifact_secrets(self, old: ArtifactSecrets | None, new: ArtifactSecrets) -> bool:
        if self.stored != old:
            return self.stored == new
        self.stored = new
        return True


class FakeArtifacts:
    """media_outputs.ArtifactStore in a dict; the next `failures` calls of `put` raise these errors."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.failures: list[Exception] = []

    def put(self, owner: str, created_at: int, content: bytes, content_type: str) -> str:
        if self.failures:
            raise self.failures.pop(0)
        key = artifact_key(owner, created_at, content, content_type)
        self.files[key] = content
        return key

    def link(self, key: str, *, seconds: int, is_head: bool = False) -> str | None:
        return f"https://files.example/{key}?ttl={seconds}" if key in self.files else None


class FakeFileSource:
    """image_outputs.FileSource with a file, or an error to raise, for each URL; `fetched` are the URLs in order."""

    def __init__(self, files: Mapping[str, bytes | Exception] | None = None) -> None:
        self.files = dict(files or {})
        self.fetched: list[str] = []

    def fetch(self, url: str, upstream: Upstream, *, max_bytes: int, timeout_s: float) -> bytes:
        self.fetched.append(url)
        file = self.files.get(url, DownloadFailed("its URL returned status 404"))
        if isinstance(file, Exception):
            raise file
        if len(file) > max_bytes:
            raise DownloadFailed(f"it is larger than {max_bytes:,} bytes")
        return file


class FakeJobs:
    """jobs.ports.JobStore in a dict, driven by the same table of transitions."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.items: dict[int, dict[str, Any]] = {}
        self.bodies: dict[tuple[int, str], bytes] = {}
        self.refs: dict[tuple[str, str], tuple[int, int]] = {}

    def create(self, job: Job, request: bytes, *, now_ms: int, result: bytes | None = None) -> CreateResult:
        existing_id, ttl = self.refs.get((job.owner, job.ref_id), (0, 0))
        existing = self.get(existing_id)
        if existing and ttl > now_ms // 1000 and not existing.is_past_ttl(now_ms):
            return CreateResult(_job(self.items[existing_id]), created=False)
        while job.id in self.items:
            job = replace(job, id=self._clock.job_id())
        job = replace(job, request_location="item")
        if result is not None:
            location = result_location(job, result, job.result_type)
            job = replace(job, result_location=location, result_bytes=len(result))
            self.bodies[job.id, "result"] = result
        self.items[job.id] = {name: value for name, value in vars(job).items() if value is not None}
        self.bodies[job.id, "request"] = request
        self.refs[job.owner, job.ref_id] = (job.id, job.deadline // 1000 + 60 * 86_400)
        return CreateResult(job, created=True)

    def get(self, job_id: int) -> Job | None:
        return _job(self.items[job_id]) if job_id in self.items else None

    def find_by_ref_id(self, owner: str, ref_id: str, *, now_ms: int) -> Job | None:
        job_id, ttl = self.refs.get((owner, ref_id), (0, 0))
        job = self.get(job_id) if ttl > now_ms // 1000 else None
        return None if job is None or job.is_past_ttl(now_ms) else job

    def apply(self, transition: Transition, job_id: int, params: Mapping[str, AttributeValue]) -> Job | ConditionFailed:
        item = self.items.get(job_id)
        if item is None:
            return ConditionFailed(None)
        if not all(_is_met(condition, item, params) for condition in transition.conditions):
            job = _job(item)
            return job if is_applied(transition, item, params) else ConditionFailed(job)
        updated = dict(item)
        for name, value in transition.effects.items():
            updated[name] = resolve_value(value, params)
        for name, increment in transition.adds.items():
            updated[name] = updated.get(name, 0) + increment
        for name in transition.removes:
            updated.pop(name, None)
        self.items[job_id] = {name: value for name, value in updated.items() if value is not None}
        return _job(self.items[job_id])

    def complete(
        self, transition: Transition, job: Job, params: Mapping[str, AttributeValue], result: bytes
    ) -> ConditionFailed | None:
        content_type = str(params["result_type"]) if params["result_type"] else None
        location = result_location(job, result, content_type)
        located = {**params, "result_location": location, "result_bytes": len(result)}
        outcome = self.apply(transition, job.id, located)
        if isinstance(outcome, ConditionFailed):
            return outcome
        self.bodies[job.id, "result"] = result
        return None

    def read_request(self, job: Job) -> bytes | None:
        return self.bodies.get((job.id, "request"))

    def read_result(self, job: Job) -> bytes | None:
        return self.bodies.get((job.id, "result")) if job.result_location else None

    def presigned_url(self, location: str | None, *, seconds: int, content_type: str | None = None) -> str | None:
        return None

    def due_jobs(self, shard: str, *, now_ms: int) -> Iterator[tuple[int, int]]:
        due = [
            (item["due_at"], job_id)
            for job_id, item in self.items.items()
            if item.get("due_shard") == shard and item.get("due_at", now_ms + 1) <= now_ms
        ]
        return iter([(job_id, due_at) for due_at, job_id in sorted(due)])

    def list_page(self, owner: str, filter: JobFilter = ANY_JOB, *, take: int, cursor: int | None = None) -> JobPage:
        jobs = [_job(item) for _, item in sorted(self.items.items(), reverse=True)]
        jobs = [
            job
            for job in jobs
            if job.owner == owner
            and filter.tag in (None, job.tag)
            and filter.includes(job)
            and (cursor is None or job.id < cursor)
        ]
        return JobPage(jobs[:take], jobs[take - 1].id if len(jobs) >= take else None)


def _job(values: Mapping[str, Any]) -> Job:
    states = {"state": JobState(values["state"]), "callback": CallbackState(values["callback"])}
    return Job(**{**values, **states})


def _is_met(condition: Condition, item: Mapping[str, Any], params: Mapping[str, AttributeValue]) -> bool:
    stored = item.get(condition.attribute)
    if condition.op == "absent":
        return stored is None
    operand: Any = resolve_value(condition.value, params)
    if stored is None:
        return False
    comparisons = {"=": stored == operand, "<": stored < operand, "<=": stored <= operand, ">": stored > operand}
    return comparisons[condition.op]


class FakeMessageSender:
    """jobs.ports.MessageSender that records all messages."""

    def __init__(self) -> None:
        self.jobs: list[tuple[str, int, int]] = []
        self.attempts: list[int] = []  # one per message in `jobs`
        self.callbacks: list[tuple[int, int]] = []
        self.dues: list[int | None] = []  # one per message in `callbacks`
        self.is_down = False

    def send_job(self, queue: str, job_id: int, *, attempt: int, delay_s: int = 0) -> None:
        if self.is_down:
            raise ConnectionError("SQS is unavailable")
        self.jobs.append((queue, job_id, delay_s))
        self.attempts.append(attempt)

    def send_callback(self, job_id: int, *, due: int | None, delay_s: int = 0) -> None:
        self.callbacks.append((job_id, delay_s))
        self.dues.append(due)


class FakeLeases:
    """jobs.ports.LeaseStore in a dict, safe for threads."""

    def __init__(self) -> None:
        self.held: dict[str, dict[int, int]] = {}
        self.reads = 0
        self._lock = threading.Lock()

    def acquire(self, name: str, indexes: Sequence[int], *, now_ms: int, expires_ms: int) -> int | None:
        with self._lock:
            leases = self.held.setdefault(name, {})
            for index in indexes:
                if leases.get(index, 0) < now_ms:
                    leases[index] = expires_ms
                    return index
        return None

    def release(self, name: str, index: int, *, expires_ms: int) -> None:
        with self._lock:
            if self.held.get(name, {}).get(index) == expires_ms:
                del self.held[name][index]

    def count_active(self, names: Collection[str], *, now_ms: int) -> dict[str, int]:
        self.reads += 1
        return {name: sum(expires_ms >= now_ms for expires_ms in self.held.get(name, {}).values()) for name in names}


class FakeCircuits:
    """providers.circuit.CircuitStore in a dict, safe for threads."""

    def __init__(self) -> None:
        self.stored: dict[str, Circuit] = {}
        self.reads = self.writes = 0
        self._lock = threading.Lock()

    def read_all(self) -> dict[str, Circuit]:
        self.reads += 1
        return dict(self.stored)

    def replace(self, name: str, old: Circuit, new: Circuit) -> Circuit:
        with self._lock:
            self.writes += 1
            if name not in self.stored or self.stored[name].stamp == old.stamp:
                self.stored[name] = new
            return self.stored[name]


class FakeEventPublisher:
    """jobs.ports.EventPublisher that records all events."""

    def __init__(self) -> None:
        self.published: list[tuple[str, bytes]] = []

    def publish(self, detail_type: str, detail: bytes) -> None:
        self.published.append((detail_type, detail))


class FakeKeyStore:
    """api_keys.KeyStore in a dict."""

    def __init__(self) -> None:
        self.stored: dict[str, ApiKey] = {}
        self.secrets: dict[str, WebhookSecrets] = {}
        self.reads = 0

    def key(self, key_id: str) -> ApiKey | None:
        self.reads += 1
        return self.stored.get(key_id)

    def put_key(self, key: ApiKey, secrets: WebhookSecrets) -> None:
        self.stored[key.id], self.secrets[key.id] = key, secrets

    def replace_key(self, old: ApiKey, new: ApiKey) -> bool:
        if self.stored.get(old.id) == old:
            self.stored[old.id] = new
        return self.stored.get(old.id) == new

    def keys(self) -> list[ApiKey]:
        return list(self.stored.values())

    def webhook_secrets(self, key_id: str) -> WebhookSecrets | None:
        return self.secrets.get(key_id)

    def replace_webhook_secrets(self, key_id: str, old: WebhookSecrets, new: WebhookSecrets) -> bool:
        if self.secrets.get(key_id) == old:
            self.secrets[key_id] = new
        return self.secrets.get(key_id) == new

    def move_webhook_secrets(self, key_id: str, *, back: bool = False) -> bool:
        """Do nothing: the fake has no earlier layout to migrate."""
        return False
