"""The main loop of the functions that stream: Lambda's Runtime API, by its documentation, in place of awslambdaric.

A handler returns what any handler returns, or a generator: first the head (`{"statusCode": 200, "headers": {…}}`), then
the body's bytes as they come, where b"" means "nothing yet; is anybody still there?". When nobody is, it is closed.
What the Runtime API should not have answered ends the process, and Lambda starts another.

bin/aiserver-runtime starts it. What differs from awslambdaric for an ordinary handler: a Decimal is no result, X-Ray is
not told the cause of an error, log lines are always text, and what a mobile client says of itself is not read.

Delete it once awslambdaric streams (4.2.2 does not): AWS_LAMBDA_EXEC_WRAPPER and the wrapper go with it, and
`edge.stream` yields what that one wants. docs/streaming.md has the other way out.

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


class Fault(Exception):
    """What went wrong around a handler: Lambda's name for it, the words, and what stands for a stack trace."""


class LambdaContext:
    """What a handler is told of its call. Source: https://docs.aws.amazon.com/lambda/latest/dg/python-context.html"""

    def __init__(self, told: Any) -> None:
        self.aws_request_id = told["Lambda-Runtime-Aws-Request-Id"]
        self.invoked_function_arn = told["Lambda-Runtime-Invoked-Function-Arn"]
        self.tenant_id = told["Lambda-Runtime-Aws-Tenant-Id"]
        self.client_context = None
        self.identity = SimpleNamespace(cognito_identity_id=None, cognito_identity_pool_id=None)
        self.memory_limit_in_mb = os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")
        for name in ("function_name", "function_version", "log_group_name", "log_stream_name"):
            setattr(self, name, os.environ.get(f"AWS_LAMBDA_{name.upper()}"))
        self._deadline_ms = int(told["Lambda-Runtime-Deadline-Ms"])

    def get_remaining_time_in_millis(self) -> int:
        return max(0, self._deadline_ms - int(time.time() * 1000))


def call(api: HTTPConnection, method: str, path: str, body: bytes | None = None, headers: Any = ()) -> Any:
    """The headers and the body of the Runtime API's answer. Raises: HTTPException, OSError."""
    api.request(method, f"/2018-06-01/runtime{path}", body, dict(headers))
    return answer(api)


def answer(api: HTTPConnection) -> Any:
    """What it answers to what was sent. Raises: HTTPException where it is none of what it should be."""
    told = api.getresponse()
    content = told.read()
    if told.status not in (200, 202):
        raise HTTPException(f"the Runtime API answered {told.status}: {content[:500]!r}")
    return told.headers, content


def stream(api: HTTPConnection, path: str, chunk: bytes | None, chunks: Generator[bytes]) -> None:
    """Send what comes as it comes, until it ends or nobody takes it; an error goes into the trailers."""
    end = "0\r\n\r\n"
    with suppress(ConnectionError), closing(api), closing(chunks):
        api.request("POST", f"/2018-06-01/runtime{path}", None, STREAMED)
        while chunk is not None:
            if chunk:
                api.send(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            elif select.select([api.sock], [], [], 0)[0]:
                answer(api)  # it has closed, or says why it takes no more
            try:
                chunk = next(chunks, None)
            except Exception:
                (body, headers), chunk = failure(), None
                told = base64.b64encode(body).decode()
                end = f"0\r\n{ERROR_TYPE}: {headers[ERROR_TYPE]}\r\n{ERROR_BODY}: {told}\r\n\r\n"
        api.send(end.encode())
        answer(api)


def load(name: str) -> Any:
    """The handler that `_HANDLER` names. Raises: Fault, or what its module raises."""
    module, _, function = name.rpartition(".")
    if not module:
        raise Fault("Runtime.MalformedHandlerName", f"Bad handler '{name}'")
    if module in sys.builtin_module_names:
        raise Fault("Runtime.BuiltInModuleConflict", f"Cannot use built-in module {module} as a handler module")
    try:
        loaded = importlib.import_module(module.replace("/", "."))
    except ImportError as error:
        raise Fault("Runtime.ImportModuleError", f"Unable to import module '{module}': {error}") from error
    except SyntaxError as error:
        where = f'  File "{error.filename}" Line {error.lineno}\n    {error.text}'
        raise Fault("Runtime.UserCodeSyntaxError", f"Syntax error in module '{module}': {error}", where) from error
    if not hasattr(loaded, function):
        raise Fault("Runtime.HandlerNotFound", f"Handler '{function}' missing on module '{module}'")
    return getattr(loaded, function)


def run(handler: Any, told: Any, event: bytes) -> tuple[bytes, Any]:
    """The bytes of the handler's result; or of its head, and the generator of what follows."""
    result = handler(json.loads(event), LambdaContext(told))
    if inspect.isgenerator(result):
        return json.dumps(next(result)).encode() + bytes(8), result
    try:
        return json.dumps(result, ensure_ascii=False).encode(), None
    except (TypeError, ValueError) as error:
        raise Fault("Runtime.MarshalError", f"Unable to marshal response: {error}") from error


def failure(request_id: str = "") -> tuple[bytes, dict[str, str]]:
    """What is being handled, as Lambda wants it, with the header that names it; it goes into the log as one line."""
    error: Any = sys.exc_info()[1]
    frames = [tuple(frame) for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    kind, words, trace = type(error).__name__, str(error), traceback.format_list(frames)
    if isinstance(error, Fault):
        kind, words, *trace = error.args
    line = f"[ERROR] {kind}{words and ': '}{words}\nTraceback (most recent call last):\n{''.join(trace)}".rstrip("\n")
    print(re.sub("(?m)^ +", lambda spaces: "\N{NO-BREAK SPACE}" * len(spaces[0]), line).replace("\n", "\r"))  # noqa: T201
    told = {"errorMessage": words, "errorType": kind, "requestId": request_id, "stackTrace": trace}
    return json.dumps(told, ensure_ascii=False).encode(errors="replace"), {ERROR_TYPE: ascii(kind)[1:-1]}


def main() -> None:
    api, request_id = HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"], timeout=None), ""
    logging.Formatter.converter = time.gmtime
    line = "[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t%(aws_request_id)s\t%(message)s"
    logging.basicConfig(stream=sys.stdout, format=line, datefmt="%Y-%m-%dT%H:%M:%S")
    logging.getLogger().handlers[0].addFilter(lambda record: not record.__dict__.update(aws_request_id=request_id))
    try:
        handler = load(os.environ["_HANDLER"])
    except Exception:
        sys.exit(call(api, "POST", "/init/error", *failure()) and 1)
    while True:
        told, event = call(api, "GET", "/invocation/next")
        request_id = told["Lambda-Runtime-Aws-Request-Id"] or sys.exit("the Runtime API gave a call without an id")
        os.environ["_X_AMZN_TRACE_ID"] = told["Lambda-Runtime-Trace-Id"] or ""
        try:
            result, chunks = run(handler, told, event)
        except Exception:
            call(api, "POST", f"/invocation/{request_id}/error", *failure(request_id))
        else:
            path = f"/invocation/{request_id}/response"
            stream(api, path, result, chunks) if chunks else call(api, "POST", path, result)


if __name__ == "__main__":
    main()
