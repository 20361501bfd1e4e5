"""What a request asks for, as it is stored with its job."""

from aiserver.clock import Clock
from aiserver.jobs.job import JobRequest, request_hash
from aiserver.usecases.terminal import stored_type
from aiserver.wire.requests import ModelRequest


def describe_request(request: ModelRequest, owner: str, base_url: str, clock: Clock) -> JobRequest:
    """The stored facts of a request; one without a RefId gets a random one."""
    options = request.options
    return JobRequest(
        owner=owner,
        ref_id=options.ref_id or clock.token(),
        operation=request.operation.name,
        model=request.model,
        body_hash=request_hash(request.hash_name, request.body),
        base_url=base_url,
        tag=options.tag,
        provider=options.provider,
        reply_to=options.reply_to,
        content_type=stored_type(request.content_type),
        request_name=request.name or None,
        client_state=options.state,
        ignored=",".join(request.ignored) or None,
    )
