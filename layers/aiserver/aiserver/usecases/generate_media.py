"""Answer AI Server's media requests synchronously: texts, or files that are stored as artifacts."""

from dataclasses import dataclass
from typing import Any, cast

from aiserver.artifacts import LINK_TTL_S, ArtifactUrls
from aiserver.clock import Clock, Deadline
from aiserver.errors import ProviderError
from aiserver.operations import ResponseKind
from aiserver.usecases.complete import Complete, CompletionResult
from aiserver.usecases.media_outputs import ArtifactStore, file_output, response_texts
from aiserver.wire.errors import response_status
from aiserver.wire.render import format_duration, render
from aiserver.wire.requests import ModelRequest

NOT_STORED = "The provider's file could not be stored"


@dataclass(frozen=True)
class GeneratedMedia:
    """The response, and the call that produced it."""

    body: bytes
    headers: dict[str, str]


class GenerateMedia:
    def __init__(self, complete: Complete, artifacts: ArtifactStore, urls: ArtifactUrls, clock: Clock) -> None:
        self._complete = complete
        self._artifacts = artifacts
        self._urls = urls
        self._clock = clock

    def run(self, request: ModelRequest, *, owner: str, base_url: str, deadline: Deadline) -> GeneratedMedia:
        """The outputs, under the names of both generations of AI Server's clients. Raises: as Complete.run."""
        started_ms = self._clock.now_ms()
        self._urls.prepare()
        completion = self._complete.run(request, owner=owner, base_url=base_url, deadline=deadline)
        content_type = completion.headers.get("content-type")
        body = cast(bytes, completion.body)  # these requests do not stream
        is_file = request.operation.response is ResponseKind.BYTES
        keys = [self._store(owner, body, content_type)] if is_file else list(completion.keys)
        members: dict[str, Any]
        if keys:
            files = [file_output(self._urls, base_url, key, completion.provider) for key in keys]
            members = {"results": files, "outputs": files}
        else:
            texts = response_texts(request.operation, body, content_type)
            members = {"results": texts, "textOutputs": texts}
        members["duration"] = format_duration(self._clock.now_ms() - started_ms)
        if completion.lost:
            members["responseStatus"] = response_status(ProviderError.error_code, completion.lost)
        return GeneratedMedia(render(members), _headers(request, completion))

    def store_file(self, completion: CompletionResult, *, owner: str) -> str:
        """A link, valid for a short time, to a file that a buffered response cannot contain."""
        body = completion.body if isinstance(completion.body, bytes) else b"".join(filter(None, completion.body))
        link = self._artifacts.link(
            self._store(owner, body, completion.headers.get("content-type")), seconds=LINK_TTL_S
        )
        if link is None:
            raise ProviderError(NOT_STORED, may_be_billed=True)
        return link

    def _store(self, owner: str, body: bytes, content_type: str | None) -> str:
        """The key of the stored file. Raises: ProviderError, which clients do not retry: the call is paid for."""
        try:
            return self._artifacts.put(owner, self._clock.now_ms(), body, content_type or "")
        except Exception as error:
            raise ProviderError(NOT_STORED, may_be_billed=True) from error


def _headers(request: ModelRequest, completion: CompletionResult) -> dict[str, str]:
    ignored = dict.fromkeys((*request.ignored, *completion.ignored))
    headers = completion.response_headers | ({"x-ignored": ", ".join(ignored)} if ignored else {})
    return {name: value for name, value in headers.items() if name != "content-type"}
