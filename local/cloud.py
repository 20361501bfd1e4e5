"""The complete product on one machine: MiniStack with the stack of template.yaml, and the gateway in front of it."""

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
from local.seed import SeedKeys, new_keys, seed
from local.state_dir import make_private
from local.streams import StreamPoller
from local.template import REPOSITORY, functions, gateway_responses, read_template, routes

STACK = "aiserver"
STACK_S = 60.0
POLL_S = 0.05
LAYERS = [REPOSITORY / "layers" / "aiserver"]


class Cloud:
    """Boots when its block is entered, and ends every process when the block ends.

    `port` 0 selects a free one. `state_dir` keeps keys, jobs and bodies between runs. `proxy_endpoint` maps MiniStack's
    URL to the one that functions call, so that a proxy can be inserted.
    """

    base_url: str
    endpoint_url: str
    outputs: Mapping[str, str]
    keys: SeedKeys

    def __init__(
        self,
        upstream: Upstream,
        *,
        port: int = 0,
        strict_callbacks: bool = False,
        state_dir: Path | None = None,
        parameters: Mapping[str, str] | None = None,
        proxy_endpoint: Callable[[str], str] = lambda url: url,
    ) -> None:
        self.upstream = upstream
        self.port = port
        self._deletes_logs = port == 0  # the logs of a random port are not needed after a success
        self._strict_callbacks = strict_callbacks
        self._state_dir = state_dir
        self._parameters = parameters or {}
        self._proxy_endpoint = proxy_endpoint
        self._template = read_template()
        self._pools: dict[str, SandboxPool] = {}
        self._pollers: list[QueuePoller | StreamPoller] = []
        self._queue_pollers: dict[str, QueuePoller] = {}
        self._resources = ExitStack()

    def __enter__(self) -> Self:
        """Raises: CloudFailed."""
        try:
            self._boot()
        except BaseException as failure:
            self._resources.close()
            if isinstance(failure, AdminError | FunctionFailed):
                raise CloudFailed(str(failure)) from failure
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.close()
        if error is None and self._deletes_logs:
            shutil.rmtree(self.log_dir, ignore_errors=True)

    def invoke(self, name: str, event: bytes) -> bytes:
        """Run the function `name` (chat, worker, …) once. Raises: FunctionFailed, KeyError."""
        return self._pools[name].invoke(event)

    def function(self, name: str) -> DeployedFunction:
        """The deployed function `name`. Raises: KeyError."""
        return self._pools[name].function

    def start_sandbox_pool(self, name: str, *, timeout_s: int) -> SandboxPool:
        """Additional sandboxes of the function `name` with another timeout; closed with the cloud. Raises: KeyError."""
        return self._pool(replace(self.function(name), timeout_s=timeout_s))

    def pause(self, queue_arn: str) -> AbstractContextManager[None]:
        """Deliver no messages of this queue until the block ends. Raises: KeyError."""
        return self._queue_pollers[queue_arn].pause()

    def max_memory_used_mb(self, name: str) -> int:
        """Peak memory of the running sandboxes of the function `name`, in MB. Raises: KeyError."""
        return self._pools[name].max_memory_used_mb

    def pids(self, name: str) -> list[int]:
        """The process ids of the running sandboxes of the function `name`. Raises: KeyError."""
        return self._pools[name].pids

    def memory_kb(self, name: str) -> list[int]:
        """Current memory of each running sandbox of the function `name`, in KB. Raises: KeyError."""
        return self._pools[name].memory_kb

    @property
    def function_names(self) -> list[str]:
        return sorted(self._pools)

    def _boot(self) -> None:
        gateway = _listen(self.port)
        self._resources.callback(gateway.close)
        self.port = gateway.port
        self.base_url = f"http://127.0.0.1:{gateway.port}"
        self.log_dir = REPOSITORY / ".local" / str(gateway.port)
        self.log_dir.mkdir(0o700, parents=True, exist_ok=True)
        make_private(self.log_dir)
        self._resources.callback(self._join)  # after MiniStack has ended, which also ends an open long poll
        self.endpoint_url = self._resources.enter_context(
            ministack.running(self.log_dir, state_dir=self._state_dir, proxy_endpoint=self._proxy_endpoint)
        )
        self.keys = new_keys()
        self.outputs = self._deploy()
        set_redrive_policies(self._template, STACK, self.endpoint_url)
        upstream = self.upstream
        seed(self.endpoint_url, self.outputs, upstream.providers, upstream.environment, self.keys)
        self._pools = {function.name: self._pool(function) for function in self._read_functions()}
        names = {function.logical_id: function.name for function in functions(self._template)}
        api_routes = routes(self._template, self._parameters)
        mappings = take_over(self.endpoint_url)
        self._warm({names[route.function] for route in api_routes}, {mapping.function_arn for mapping in mappings})
        mapping_counts = Counter(mapping.function_arn for mapping in mappings)
        for mapping in mappings:
            self._poll(mapping, max_invocations=MAX_SANDBOXES // mapping_counts[mapping.function_arn])

        def invoke(logical_id: str, event: bytes, request_id: str, sink: Sink | None) -> bytes:
            return self._pools[names[logical_id]].invoke(event, request_id=request_id, sink=sink)

        if self._state_dir is not None:
            ministack.checkpoint(self.endpoint_url)
        gateway.open(api_routes, gateway_responses(self._template), invoke)

    def _pool(self, function: DeployedFunction) -> SandboxPool:
        pool = SandboxPool(function, self._proxy_endpoint(self.endpoint_url), self.log_dir, LAYERS)
        self._resources.callback(pool.close)
        return pool

    def _poll(self, mapping: EventSourceMapping, *, max_invocations: int) -> None:
        (pool,) = [pool for pool in self._pools.values() if pool.function.arn == mapping.function_arn]
        if mapping.service == "sqs":
            sqs = aws.client("sqs", self.endpoint_url, max_attempts=1)
            poller = QueuePoller(mapping, sqs, pool.invoke, max_invocations=max_invocations)
            self._queue_pollers[mapping.arn] = poller
        else:
            streams = aws.client("dynamodbstreams", self.endpoint_url, max_attempts=1)
            poller = StreamPoller(mapping, streams, pool.invoke)
        self._pollers.append(poller)
        poller.start()
        self._resources.callback(poller.stop)

    def _join(self) -> None:
        for poller in self._pollers:
            poller.join()

    def _warm(self, route_names: set[str], mapping_arns: set[str]) -> None:
        """Start one process of each function, so that the first call is as fast as the next.

        Functions behind the gateway (by name) and those with an event source (by ARN) start in sandboxes; the
        scheduled one starts in MiniStack.
        """
        client = aws.client("lambda", self.endpoint_url)

        def warm(pool: SandboxPool) -> None:
            if pool.function.name in route_names or pool.function.arn in mapping_arns:
                pool.warm()
            else:
                client.invoke(FunctionName=pool.function.arn, Payload=b'{"Records": []}')

        with ThreadPoolExecutor(len(self._pools)) as threads:
            list(threads.map(warm, self._pools.values()))

    def _deploy(self) -> Mapping[str, str]:
        cloudformation = aws.client("cloudformation", self.endpoint_url)
        parameters = {
            "PublicBaseUrl": self.base_url,
            "UnsafeAllowAnyCallbackAddress": "false" if self._strict_callbacks else "true",
            "IntakeKeyIds": self.keys.key_id,
            "CallbacksPerKey": str(MAX_SANDBOXES * 3 // 4),  # leaves capacity for other keys, as on AWS
            "CallbacksPerReceiver": str(MAX_SANDBOXES // 4),
            **self._parameters,
        }
        stack = {
            "StackName": STACK,
            "TemplateBody": json.dumps(package.upload(self._template, self.endpoint_url)),
            "Parameters": [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
            "Capabilities": ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
        }
        if self._exists(cloudformation):
            cloudformation.update_stack(**stack)
        else:
            cloudformation.create_stack(**stack)
        deadline = time.monotonic() + STACK_S
        while True:
            description = cloudformation.describe_stacks(StackName=STACK)["Stacks"][0]
            status = description["StackStatus"]
            if status in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
                return {output["OutputKey"]: output["OutputValue"] for output in description["Outputs"]}
            if not status.endswith("IN_PROGRESS") or time.monotonic() > deadline:
                reason = description.get("StackStatusReason", "")
                raise CloudFailed(f"The stack is {status} {reason}; see {self.log_dir / 'ministack.log'}")
            time.sleep(POLL_S)

    def _exists(self, cloudformation: Any) -> bool:
        if self._state_dir is None:
            return False
        try:
            return bool(cloudformation.describe_stacks(StackName=STACK)["Stacks"])
        except cloudformation.exceptions.ClientError:
            return False

    def _read_functions(self) -> list[DeployedFunction]:
        """The template's functions with the configuration that the stack resolved."""
        client = aws.client("lambda", self.endpoint_url)
        resources = aws.client("cloudformation", self.endpoint_url).describe_stack_resources(StackName=STACK)
        physical_ids = {r["LogicalResourceId"]: r["PhysicalResourceId"] for r in resources["StackResources"]}
        deployed: list[DeployedFunction] = []
        for function in functions(self._template, self._parameters):
            configuration = client.get_function_configuration(FunctionName=physical_ids[function.logical_id])
            deployed.append(
                DeployedFunction(
                    name=function.name,
                    arn=configuration["FunctionArn"],
                    folder=function.folder,
                    handler=configuration["Handler"],
                    timeout_s=configuration["Timeout"],
                    memory_mb=configuration["MemorySize"],
                    environment=configuration["Environment"]["Variables"],
                )
            )
        return deployed


def _listen(port: int) -> Gateway:
    try:
        return Gateway(port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise CloudFailed(f"Port {port} is in use; choose another, for example PORT={port + 1} make dev") from error
        raise CloudFailed(f"Cannot listen on port {port}: {error.strerror}") from error
