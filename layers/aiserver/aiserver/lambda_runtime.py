"""Runtime client of the streaming functions: replaces awslambdaric, following Lambda's documented Runtime API.

A handler returns an ordinary result or a generator. A generator yields the head (`{"statusCode": 200, "headers":
{…}}`), then the body's chunks. None or b"" means that there is nothing to send now: the connection is checked. When it
is closed, so is the generator. An unexpected response of the Runtime API ends the process, and Lambda starts a new one.

bin/aiserver-runtime starts it. Differences from awslambdaric for an ordinary handler: a Decimal is not serialized,
X-Ray receives no error cause, log lines are always text, and the client context of the mobile SDK is not read.

Delete this module once awslambdaric streams (4.2.2 does not), with AWS_LAMBDA_EXEC_WRAPPER and the wrapper, and adapt
`http_api.respond_streaming` to its generators. docs/streaming.md describes the alternative.

Source: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
https://docs.aws.amazon.com/lambda/latest/dg/runtimes-custom.html#runtimes-custom-response-streaming
https://docs.aws.amazon.com/apigateway/latest/developerguide/response-transfer-mode-lambda.html
"""

import base64
import importlib
import inspect
import json
import logging
import os
import select
import sys
import time
import traceback
from collections.abc import Callable, Generator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPConnection, HTTPException
from types import ModuleType, SimpleNamespace
from typing import Any, NoReturn, cast

Handler = Callable[[Any, "LambdaContext"], Any]
BodyChunks = Generator[bytes | None]

BASE_PATH = "/2018-06-01/runtime"
ERROR_TYPE = "Lambda-Runtime-Function-Error-Type"
ERROR_BODY = "Lambda-Runtime-Function-Error-Body"
STREAM_HEADERS = {
    "Content-Type": "application/vnd.awslambda.http-integration-response",
    "Lambda-Runtime-Function-Response-Mode": "streaming",
    "Transfer-Encoding": "chunked",
    "Trailer": f"{ERROR_TYPE}, {ERROR_BODY}",
}
HEAD_END = bytes(8)  # API Gateway's separator of the head and the body
MAX_QUOTED_BYTES = 500  # of an unexpected response, in the error message


def main() -> NoReturn:
    api = RuntimeApi(os.environ["AWS_LAMBDA_RUNTIME_API"])
    request_id_filter = RequestIdFilter()
    configure_logging(request_id_filter)
    try:
        handler = load_handler(os.environ["_HANDLER"])
    except Exception as error:
        api.send_init_error(log_error(error))
        sys.exit(1)
    serve(api, handler, request_id_filter)


def serve(api: "RuntimeApi", handler: Handler, request_id_filter: "RequestIdFilter") -> NoReturn:
    """Handle invocations until the process ends. Raises: HTTPException, OSError, when a Runtime API request fails."""
    while True:
        invocation = api.next_invocation()
        request_id_filter.request_id = invocation.request_id
        os.environ["_X_AMZN_TRACE_ID"] = invocation.headers["Lambda-Runtime-Trace-Id"] or ""
        try:
            response, chunks = invocation.call(handler)
        except Exception as error:
            api.send_error(invocation.request_id, log_error(error, invocation.request_id))
            continue
        if chunks is None:
            api.send_response(invocation.request_id, response)
        else:
            api.stream_response(invocation.request_id, response, chunks)


@dataclass(frozen=True)
class Invocation:
    """One call of the handler: its event, as JSON, and the headers that describe it."""

    request_id: str
    headers: Message
    event: bytes

    def call(self, handler: Handler) -> tuple[bytes, BodyChunks | None]:
        """Return the handler's result as JSON and None; for a generator, its head and the generator of the body.

        Raises: HandlerError, when the result is not JSON; any exception of the handler.
        """
        result = handler(json.loads(self.event), LambdaContext(self.headers))
        if inspect.isgenerator(result):
            head = json.dumps(next(result)).encode()
            return head + HEAD_END, cast(BodyChunks, result)
        try:
            return json.dumps(result, ensure_ascii=False).encode(), None
        except (TypeError, ValueError) as error:
            raise HandlerError("Runtime.MarshalError", f"Unable to marshal response: {error}") from error


class LambdaContext:
    """The context of an invocation. Source: https://docs.aws.amazon.com/lambda/latest/dg/python-context.html"""

    def __init__(self, headers: Message) -> None:
        self.aws_request_id = headers["Lambda-Runtime-Aws-Request-Id"]
        self.invoked_function_arn = headers["Lambda-Runtime-Invoked-Function-Arn"]
        self.tenant_id = headers["Lambda-Runtime-Aws-Tenant-Id"]
        self.client_context = None
        self.identity = SimpleNamespace(cognito_identity_id=None, cognito_identity_pool_id=None)
        self.memory_limit_in_mb = os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")
        self.function_name = os.environ.get("AWS_LAMBDA_FUNCTION_NAME")
        self.function_version = os.environ.get("AWS_LAMBDA_FUNCTION_VERSION")
        self.log_group_name = os.environ.get("AWS_LAMBDA_LOG_GROUP_NAME")
        self.log_stream_name = os.environ.get("AWS_LAMBDA_LOG_STREAM_NAME")
        self._deadline_ms = int(headers["Lambda-Runtime-Deadline-Ms"])

    def get_remaining_time_in_millis(self) -> int:
        """Return the milliseconds until the function times out; 0 after that."""
        return max(0, self._deadline_ms - int(time.time() * 1000))


class RuntimeApi:
    """A connection to the Runtime API. Its methods raise HTTPException or OSError when a request fails."""

    def __init__(self, address: str) -> None:
        self._connection = HTTPConnection(address, timeout=None)  # the next invocation may be hours away

    def next_invocation(self) -> Invocation:
        """Wait for the next invocation and return it. When it has no request ID, the process ends."""
        self._connection.request("GET", f"{BASE_PATH}/invocation/next")
        headers, event = self._read_response()
        request_id = headers["Lambda-Runtime-Aws-Request-Id"]
        if not request_id:
            sys.exit("the Runtime API returned no request ID")
        return Invocation(request_id, headers, event)

    def send_response(self, request_id: str, response: bytes) -> None:
        self._post(f"/invocation/{request_id}/response", response, {})

    def send_error(self, request_id: str, report: "ErrorReport") -> None:
        self._post(f"/invocation/{request_id}/error", report.body, report.headers)

    def send_init_error(self, report: "ErrorReport") -> None:
        self._post("/init/error", report.body, report.headers)

    def stream_response(self, request_id: str, head: bytes, chunks: BodyChunks) -> None:
        """Send the head, then the chunks until they end or the connection is closed; close both."""
        with suppress(ConnectionError), closing(self._connection), closing(chunks):
            self._connection.request("POST", f"{BASE_PATH}/invocation/{request_id}/response", headers=STREAM_HEADERS)
            self._send_chunk(head)
            trailers = self._send_chunks(chunks)
            self._connection.send(b"0\r\n%b\r\n" % trailers)
            self._read_response()

    def _send_chunks(self, chunks: BodyChunks) -> bytes:
        """Send the chunks; return the trailers, which are empty unless the generator raised an error."""
        while True:
            try:
                chunk = next(chunks)
            except StopIteration:
                return b""
            except Exception as error:
                return log_error(error).trailers
            if chunk:
                self._send_chunk(chunk)
            else:
                self._check_connection()

    def _send_chunk(self, chunk: bytes) -> None:
        self._connection.send(b"%x\r\n%b\r\n" % (len(chunk), chunk))

    def _check_connection(self) -> None:
        """Raises: ConnectionError, when the connection is closed; HTTPException, when the response is rejected."""
        readable_sockets, _, _ = select.select([self._connection.sock], [], [], 0)
        if readable_sockets:
            self._read_response()

    def _post(self, path: str, body: bytes, headers: Mapping[str, str]) -> None:
        self._connection.request("POST", BASE_PATH + path, body, headers)
        self._read_response()

    def _read_response(self) -> tuple[Message, bytes]:
        """Return the headers and the body. Raises: HTTPException, when the status is not 200 or 202."""
        response = self._connection.getresponse()
        body = response.read()
        if response.status not in (200, 202):
            raise HTTPException(f"the Runtime API returned {response.status}: {body[:MAX_QUOTED_BYTES]!r}")
        return response.headers, body


def load_handler(name: str) -> Handler:
    """Import and return the handler `name`, `module.function`. Raises: HandlerError; any exception of the module."""
    module_name, _, function_name = name.rpartition(".")
    if not module_name:
        raise HandlerError("Runtime.MalformedHandlerName", f"Bad handler '{name}'")
    module = import_handler_module(module_name)
    if not hasattr(module, function_name):
        raise HandlerError("Runtime.HandlerNotFound", f"Handler '{function_name}' missing on module '{module_name}'")
    return getattr(module, function_name)


def import_handler_module(name: str) -> ModuleType:
    """Import and return the module; `/` separates packages too. Raises: HandlerError; any exception of the module."""
    if name in sys.builtin_module_names:
        message = f"Cannot use built-in module {name} as a handler module"
        raise HandlerError("Runtime.BuiltInModuleConflict", message)
    try:
        return importlib.import_module(name.replace("/", "."))
    except ImportError as error:
        message = f"Unable to import module '{name}': {error}"
        raise HandlerError("Runtime.ImportModuleError", message) from error
    except SyntaxError as error:
        message = f"Syntax error in module '{name}': {error}"
        location = f'  File "{error.filename}" Line {error.lineno}\n    {error.text}'
        raise HandlerError("Runtime.UserCodeSyntaxError", message, location) from error


class HandlerError(Exception):
    """The handler cannot be loaded, or its result not serialized. Its stack trace replaces that of the exception."""

    def __init__(self, error_type: str, message: str, *stack_trace: str) -> None:
        super().__init__(message)
        self.error_type = error_type
        self.stack_trace = list(stack_trace)


@dataclass(frozen=True)
class ErrorReport:
    """An error of the handler, as sent to Lambda: in a request of its own, or in the trailers of a stream."""

    headers: dict[str, str]
    body: bytes

    @property
    def trailers(self) -> bytes:
        encoded_body = base64.b64encode(self.body).decode()
        return f"{ERROR_TYPE}: {self.headers[ERROR_TYPE]}\r\n{ERROR_BODY}: {encoded_body}\r\n".encode()


def log_error(error: Exception, request_id: str = "") -> ErrorReport:
    """Log the error as one line, and return the report of it for Lambda."""
    error_type, message, stack_trace = type(error).__name__, str(error), format_handler_frames(error)
    if isinstance(error, HandlerError):
        error_type, stack_trace = error.error_type, error.stack_trace
    print(format_log_line(error_type, message, stack_trace))  # noqa: T201
    fields = {"errorMessage": message, "errorType": error_type, "requestId": request_id, "stackTrace": stack_trace}
    body = json.dumps(fields, ensure_ascii=False).encode(errors="replace")
    ascii_type = ascii(error_type)[1:-1]  # a class name may contain other letters, a header may not
    return ErrorReport({ERROR_TYPE: ascii_type}, body)


def format_handler_frames(error: Exception) -> list[str]:
    """Return the lines of the stack trace, without the frames of this module."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    return traceback.format_list([tuple(frame) for frame in frames])  # a tuple: no line of carets below the code


def format_log_line(error_type: str, message: str, stack_trace: list[str]) -> str:
    """Return the error as one log line: \\r separates lines for CloudWatch, no-break spaces keep their indentation."""
    separator = ": " if message else ""
    summary = f"[ERROR] {error_type}{separator}{message}"
    text = f"{summary}\nTraceback (most recent call last):\n{''.join(stack_trace)}".rstrip("\n")
    return "\r".join(indent_with_no_break_spaces(line) for line in text.split("\n"))


def indent_with_no_break_spaces(line: str) -> str:
    code = line.lstrip(" ")
    return "\N{NO-BREAK SPACE}" * (len(line) - len(code)) + code


class RequestIdFilter(logging.Filter):
    """Adds the current request ID to each log record; it is empty during init."""

    request_id = ""

    def filter(self, record: logging.LogRecord) -> bool:
        record.__dict__["aws_request_id"] = self.request_id
        return True


def configure_logging(request_id_filter: RequestIdFilter) -> None:
    """Log to stdout in the format of awslambdaric."""
    logging.Formatter.converter = time.gmtime
    handler = logging.StreamHandler(sys.stdout)
    handler.addFilter(request_id_filter)
    log_format = "[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t%(aws_request_id)s\t%(message)s"
    logging.basicConfig(handlers=[handler], format=log_format, datefmt="%Y-%m-%dT%H:%M:%S")


if __name__ == "__main__":
    main()
