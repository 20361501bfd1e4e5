"""Stores the images of synchronous responses, and creates the URLs that callers get for them."""

import logging

from aiserver import log_events
from aiserver.artifacts import ArtifactUrls
from aiserver.clock import Deadline
from aiserver.errors import ProviderError
from aiserver.jobs.job import Job
from aiserver.providers.response import ProviderResponse
from aiserver.routing.failover import FailoverResult
from aiserver.usecases.image_outputs import ImageOutputs
from aiserver.usecases.media_outputs import job_file_keys, sign_urls
from aiserver.usecases.sync_records import SyncRecord
from aiserver.usecases.terminal import StoredResponse
from aiserver.wire.image_responses import ImageEvents

log = logging.getLogger("aiserver.sync_images")


class SyncImages:
    """Implements usecases.complete.ImageStore."""

    def __init__(self, outputs: ImageOutputs, urls: ArtifactUrls) -> None:
        self._outputs = outputs
        self._urls = urls

    def prepare(self) -> None:
        self._urls.prepare()

    def store(
        self, response: ProviderResponse, result: FailoverResult, record: SyncRecord, deadline: Deadline
    ) -> StoredResponse:
        sync = record.sync
        assert result.upstream
        try:
            return self._outputs.store(
                response,
                result.upstream,
                owner=sync.owner,
                created_at=record.created_at,
                base_url=sync.base_url,
                deadline=deadline,
            )
        except Exception:
            log.exception(log_events.IMAGES_NOT_STORED, extra={"job_id": record.job.id if record.job else None})
            error = ProviderError("The provider's images could not be stored", may_be_billed=True)
            return StoredResponse(response, error=error)

    def copy_events(self) -> ImageEvents:
        return ImageEvents()

    def sign(self, body: bytes, base_url: str, keys: tuple[str, ...]) -> bytes:
        return sign_urls(body, base_url, keys, self._urls)

    def keys(self, job: Job) -> tuple[str, ...]:
        return tuple(job_file_keys(job))
