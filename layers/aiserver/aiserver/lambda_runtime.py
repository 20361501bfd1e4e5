"""Runtime client of the streaming functions: replaces awslambdaric, following Lambda's documented Runtime API.

A handler returns an ordinary result or a generator. A generator yields the head (`{"statusCode": 200, "headers":
{…}}`), then the body's chunks; on b"" nothing is sent, and the connection is checked. When it is closed, so is the
generator. An unexpected response of the Runtime API ends the process, and Lambda starts a new one.

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
import re
import select
import sys
import time
import traceback
from collections.abc import Generator
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException
from types import SimpleNamespace
from typing import Any

ERROR_TYPE, ERROR_BODY = "Lambda-Runtime-Function-Error-Type", "Lambda-Runtime-Function-Error-Body"
STREAMED = {
    "Content-Type": "application/vnd.awslambda.http-integration-response",
    "Lambda-Runtime-Function-Response-Mode": "streaming",
    "Transfer-Encoding": "chunked",
    "Trailer": f"{ERROR_TYPE}, {ERROR_BODY}",
}


class HandlerError(Exception):
    """A failure to load or run a handler; args: Lambda's error type, the message, lines in place of a stack trace."""


class LambdaContext:
    """The context of an invocation. Source: https://docs.aws.amazon.com/lambda/latest/dg/python-context.html"""

    def __init__(self, headers: Any) -> None:
        self.aws_request_id = headers["Lambda-Runtime-Aws-Request-Id"]
        self.invoked_function_arn = headers["Lambda-Runtime-Invoked-Function-Arn"]
        self.tenant_id = headers["Lambda-Runtime-Aws-Tenant-Id"]
        self.client_context = None
        self.identity = SimpleNamespace(cognito_identity_id=None, cognito_identity_pool_id=None)
        self.memory_limit_in_mb = os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")
        for name in ("function_name", "function_version", "log_group_name", "log_stream_name"):
            setattr(self, name, os.environ.get(f"AWS_LAMBDA_{name.upper()}"))
        self._deadline_ms = int(headers["Lambda-Runtime-Deadline-Ms"])

    def get_remaining_time_in_millis(self) -> int:
        return max(0, self._deadline_ms - int(time.time() * 1000))


def call(api: HTTPConnection, method: str, path: str, body: bytes | None = None, headers: Any = ()) -> Any:
    """Send a request to the Runtime API; the headers and the body of its response. Raises: HTTPException, OSError."""
    api.request(method, f"/2018-06-01/runtime{path}", body, dict(headers))
    return read_response(api)


def read_response(api: HTTPConnection) -> Any:
    """The headers and the body of the response. Raises: HTTPException, when its status is not 200 or 202."""
    response = api.getresponse()
    body = response.read()
    if response.status not in (200, 202):
        raise HTTPException(f"the Runtime API returned {response.status}: {body[:500]!r}")
    return response.headers, body


def stream(api: HTTPConnection, path: str, chunk: bytes | None, chunks: Generator[bytes]) -> None:
    """Send the chunks until they end or the connection closes; an error goes into the trailers."""
    end = "0\r\n\r\n"
    with suppress(ConnectionError), closing(api), closing(chunks):
        api.request("POST", f"/2018-06-01/runtime{path}", None, STREAMED)
        while chunk is not None:
            if chunk:
                api.send(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            elif select.select([api.sock], [], [], 0)[0]:
                read_response(api)  # the Runtime API closed the connection or rejected the response
            try:
                chunk = next(chunks, None)
            except Exception:
                (body, headers), chunk = failure(), None
                encoded_body = base64.b64encode(body).decode()
                end = f"0\r\n{ERROR_TYPE}: {headers[ERROR_TYPE]}\r\n{ERROR_BODY}: {encoded_body}\r\n\r\n"
        api.send(end.encode())
        read_response(api)


def load(name: str) -> Any:
    """Import the handler `name`, `module.function`. Raises: Fault, or any exception of the module."""
    module_name, _, function = name.rpartition(".")
    if not module_name:
        raise HandlerError("Runtime.MalformedHandlerName", f"Bad handler '{name}'")
    if module_name in sys.builtin_module_names:
        raise HandlerError(
            "Runtime.BuiltInModuleConflict", f"Cannot use built-in module {module_name} as a handler module"
        )
    try:
        module = importlib.import_module(module_name.replace("/", "."))
    except ImportError as error:
        raise HandlerError("Runtime.ImportModuleError", f"Unable to import module '{module_name}': {error}") from error
    except SyntaxError as error:
        location = f'  File "{error.filename}" Line {error.lineno}\n    {error.text}'
        raise HandlerError(
            "Runtime.UserCodeSyntaxError", f"Syntax error in module '{module_name}': {error}", location
        ) from error
    if not hasattr(module, function):
        raise HandlerError("Runtime.HandlerNotFound", f"Handler '{function}' missing on module '{module_name}'")
    return getattr(module, function)


def run(handler: Any, headers: Any, event: bytes) -> tuple[bytes, Any]:
    """The result as JSON and None; for a generator, the JSON of its head and the generator of the chunks."""
    result = handler(json.loads(event), LambdaContext(headers))
    if inspect.isgenerator(result):
        return json.dumps(next(result)).encode() + bytes(8), result
    try:
        return json.dumps(result, ensure_ascii=False).encode(), None
    except (TypeError, ValueError) as error:
        raise HandlerError("Runtime.MarshalError", f"Unable to marshal response: {error}") from error


def failure(request_id: str = "") -> tuple[bytes, dict[str, str]]:
    """Log the current exception as one line; the body and the header that report it to Lambda."""
    error: Any = sys.exc_info()[1]
    frames = [tuple(frame) for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    error_type, message, trace = type(error).__name__, str(error), traceback.format_list(frames)
    if isinstance(error, HandlerError):
        error_type, message, *trace = error.args
    summary = f"[ERROR] {error_type}{message and ': '}{message}"
    line = f"{summary}\nTraceback (most recent call last):\n{''.join(trace)}".rstrip("\n")
    print(re.sub("(?m)^ +", lambda spaces: "\N{NO-BREAK SPACE}" * len(spaces[0]), line).replace("\n", "\r"))  # noqa: T201
    report = {"errorMessage": message, "errorType": error_type, "requestId": request_id, "stackTrace": trace}
    return json.dumps(report, ensure_ascii=False).encode(errors="replace"), {ERROR_TYPE: ascii(error_type)[1:-1]}


def main() -> None:
    api, request_id = HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"], timeout=None), ""
    logging.Formatter.converter = time.gmtime
    log_format = "[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t%(aws_request_id)s\t%(message)s"
    logging.basicConfig(stream=sys.stdout, format=log_format, datefmt="%Y-%m-%dT%H:%M:%S")
    logging.getLogger().handlers[0].addFilter(lambda record: not record.__dict__.update(aws_request_id=request_id))
    try:
        handler = load(os.environ["_HANDLER"])
    except Exception:
        sys.exit(call(api, "POST", "/init/error", *failure()) and 1)
    while True:
        headers, event = call(api, "GET", "/invocation/next")
        request_id = headers["Lambda-Runtime-Aws-Request-Id"] or sys.exit("the Runtime API returned no request ID")
        os.environ["_X_AMZN_TRACE_ID"] = headers["Lambda-Runtime-Trace-Id"] or ""
        try:
            result, chunks = run(handler, headers, event)
        except Exception:
            call(api, "POST", f"/invocation/{request_id}/error", *failure(request_id))
        else:
            path = f"/invocation/{request_id}/response"
            stream(api, path, result, chunks) if chunks else call(api, "POST", path, result)


if __name__ == "__main__":
    main()
