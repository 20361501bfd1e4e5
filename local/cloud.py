"""The whole product on one machine: MiniStack with the stack of template.yaml, and the door in front of it."""

import errno
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiserver.admin.stack import AdminError
from local import aws, ministack, package
from local.choose_upstream import Upstream
from local.event_source_mappings import EventSourceMapping, take_over
from local.gateway import Gateway
from local.ministack import CloudFailed
from local.queues import QueuePoller
from local.redrive import set_redrive_policies
from local.runtime_api import DeployedFunction, FunctionFailed, Sink
from local.sandbox_pool import MAX_SANDBOXES, SandboxPool
from local.seed import Seeded, new_keys, seed
from local.state_dir import make_private
from local.streams import StreamPoller
from local.template import REPOSITORY, functions, gateway_responses, read_template, routes

STACK = "aiserver"
STACK_S = 60.0
POLL_S = 0.05
LAYERS = [REPOSITORY / "layers" / "aiserver"]


class Cloud:
    """Boots on entering its block, and leaves no process behind however the block ends.

    `port` 0 takes a free one. `state_dir` keeps keys, jobs and bodies between runs. `between` is told AWS's
    address and says at which one functions are to call it, so that something may stand between the two.
    """

    base_url: str
    endpoint_url: str
    outputs: Mapping[str, str]
    seeded: Seeded

    def __init__(
        self,
        upstream: Upstream,
        *,
        port: int = 0,
        strict_callbacks: bool = False,
        state_dir: Path | None = None,
        parameters: Mapping[str, str] | None = None,
        between: Callable[[str], str] = lambda url: url,
    ) -> None:
        self.upstream = upstream
        self.port = port
        self._throw_away = port == 0  # nobody will look for the logs of a port that was taken at random
        self._strict = strict_callbacks
        self._state_dir = state_dir
        self._parameters = parameters or {}
        self._between = between
        self._template = read_template()
        self._pools: dict[str, SandboxPool] = {}
        self._pollers: list[QueuePoller | StreamPoller] = []
        self._queues: dict[str, QueuePoller] = {}
        self._running = ExitStack()

    def __enter__(self) -> Self:
        """Raises: CloudFailed."""
        try:
            self._boot()
        except BaseException as failure:
            self._running.close()
            if isinstance(failure, AdminError | FunctionFailed):
                raise CloudFailed(str(failure)) from failure
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()
        if error is None and self._throw_away:
            shutil.rmtree(self.log_dir, ignore_errors=True)

    def invoke(self, name: str, event: bytes) -> bytes:
        """Run the function `name` (chat, worker, …) once. Raises: FunctionFailed, KeyError."""
        return self._pools[name].invoke(event)

    def function(self, name: str) -> DeployedFunction:
        """The function `name` as the stack has it. Raises: KeyError."""
        return self._pools[name].function

    def sandboxes(self, name: str, *, timeout_s: int) -> SandboxPool:
        """Sandboxes of the function `name` with another time limit, beside those that serve; closed with the cloud."""
        return self._pool(replace(self.function(name), timeout_s=timeout_s))

    def paused(self, queue_arn: str) -> AbstractContextManager[None]:
        """While the block lasts, no function is given messages of this queue. Raises: KeyError."""
        return self._queues[queue_arn].paused()

    def max_memory_used_mb(self, name: str) -> int:
        """The most memory that any running sandbox of the function `name` has held. Raises: KeyError."""
        return self._pools[name].max_memory_used_mb

    def pids(self, name: str) -> list[int]:
        """The running processes of the function `name`. Raises: KeyError."""
        return self._pools[name].pids

    def memory_kb(self, name: str) -> list[int]:
        """What each running sandbox of the function `name` holds now. Raises: KeyError."""
        return self._pools[name].memory_kb

    @property
    def function_names(self) -> list[str]:
        return sorted(self._pools)

    def _boot(self) -> None:
        door = _door(self.port)
        self._running.callback(door.close)
        self.port = door.port
        self.base_url = f"http://127.0.0.1:{door.port}"
        self.log_dir = REPOSITORY / ".local" / str(door.port)
        self.log_dir.mkdir(0o700, parents=True, exist_ok=True)
        make_private(self.log_dir)
        self._running.callback(self._join)  # last: MiniStack's end is that of an open long poll, too
        self.endpoint_url = self._running.enter_context(
            ministack.running(self.log_dir, state_dir=self._state_dir, between=self._between)
        )
        self.seeded = new_keys()
        self.outputs = self._deploy()
        set_redrive_policies(self._template, STACK, self.endpoint_url)
        upstream = self.upstream
        seed(self.endpoint_url, self.outputs, upstream.providers, upstream.environment, self.seeded)
        self._pools = {function.name: self._pool(function) for function in self._deployed()}
        names = {function.logical_id: function.name for function in functions(self._template)}
        served = routes(self._template, self._parameters)
        sources = take_over(self.endpoint_url)
        self._warm({names[route.function] for route in served}, {source.function_arn for source in sources})
        fed = Counter(source.function_arn for source in sources)
        for source in sources:
            self._poll(source, most=MAX_SANDBOXES // fed[source.function_arn])

        def invoke(logical_id: str, event: bytes, request_id: str, sink: Sink | None) -> bytes:
            return self._pools[names[logical_id]].invoke(event, request_id=request_id, sink=sink)

        if self._state_dir is not None:
            ministack.checkpoint(self.endpoint_url)
        door.open(served, gateway_responses(self._template), invoke)

    def _pool(self, function: DeployedFunction) -> SandboxPool:
        pool = SandboxPool(function, self._between(self.endpoint_url), self.log_dir, LAYERS)
        self._running.callback(pool.close)
        return pool

    def _poll(self, source: EventSourceMapping, *, most: int) -> None:
        (pool,) = [pool for pool in self._pools.values() if pool.function.arn == source.function_arn]
        if source.service == "sqs":
            sqs = aws.client("sqs", self.endpoint_url, tries=1)
            poller = self._queues[source.arn] = QueuePoller(source, sqs, pool.invoke, most=most)
        else:
            streams = aws.client("dynamodbstreams", self.endpoint_url, tries=1)
            poller = StreamPoller(source, streams, pool.invoke)
        self._pollers.append(poller)
        poller.start()
        self._running.callback(poller.stop)

    def _join(self) -> None:
        for poller in self._pollers:
            poller.join()

    def _warm(self, http: set[str], fed: set[str]) -> None:
        """One process of each function, so that the first call is no slower than the next: those behind the door (by
        name) and those with an event source (by ARN) in sandboxes, the scheduled one where MiniStack runs it."""
        client = aws.client("lambda", self.endpoint_url)

        def warm(pool: SandboxPool) -> None:
            if pool.function.name in http or pool.function.arn in fed:
                pool.warm()
            else:
                client.invoke(FunctionName=pool.function.arn, Payload=b'{"Records": []}')

        with ThreadPoolExecutor(len(self._pools)) as threads:
            list(threads.map(warm, self._pools.values()))

    def _deploy(self) -> Mapping[str, str]:
        cloudformation = aws.client("cloudformation", self.endpoint_url)
        given = {
            "PublicBaseUrl": self.base_url,
            "UnsafeAllowAnyCallbackAddress": "false" if self._strict else "true",
            "IntakeKeyIds": self.seeded.key_id,
            "CallbacksPerKey": str(MAX_SANDBOXES * 3 // 4),  # here, too, others find room
            "CallbacksPerReceiver": str(MAX_SANDBOXES // 4),
            **self._parameters,
        }
        stack = {
            "StackName": STACK,
            "TemplateBody": json.dumps(package.upload(self._template, self.endpoint_url)),
            "Parameters": [{"ParameterKey": key, "ParameterValue": value} for key, value in given.items()],
            "Capabilities": ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
        }
        if self._exists(cloudformation):
            cloudformation.update_stack(**stack)
        else:
            cloudformation.create_stack(**stack)
        deadline = time.monotonic() + STACK_S
        while True:
            found = cloudformation.describe_stacks(StackName=STACK)["Stacks"][0]
            if found["StackStatus"] in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
                return {output["OutputKey"]: output["OutputValue"] for output in found["Outputs"]}
            if not found["StackStatus"].endswith("IN_PROGRESS") or time.monotonic() > deadline:
                why = found.get("StackStatusReason", "")
                raise CloudFailed(f"the stack is {found['StackStatus']} {why}; see {self.log_dir / 'ministack.log'}")
            time.sleep(POLL_S)

    def _exists(self, cloudformation: Any) -> bool:
        if self._state_dir is None:
            return False
        try:
            return bool(cloudformation.describe_stacks(StackName=STACK)["Stacks"])
        except cloudformation.exceptions.ClientError:
            return False

    def _deployed(self) -> list[DeployedFunction]:
        """The template's functions, with the environment their stack gave them."""
        client = aws.client("lambda", self.endpoint_url)
        resources = aws.client("cloudformation", self.endpoint_url).describe_stack_resources(StackName=STACK)
        physical = {r["LogicalResourceId"]: r["PhysicalResourceId"] for r in resources["StackResources"]}
        found: list[DeployedFunction] = []
        for function in functions(self._template, self._parameters):
            made = client.get_function_configuration(FunctionName=physical[function.logical_id])
            found.append(
                DeployedFunction(
                    name=function.name,
                    arn=made["FunctionArn"],
                    folder=function.folder,
                    handler=made["Handler"],
                    timeout_s=made["Timeout"],
                    memory_mb=made["MemorySize"],
                    environment=made["Environment"]["Variables"],
                )
            )
        return found


def _door(port: int) -> Gateway:
    try:
        return Gateway(port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise CloudFailed(f"port {port} is taken; choose another, as in: PORT={port + 1} make dev") from error
        raise CloudFailed(f"port {port} cannot be listened on: {error.strerror}") from error
