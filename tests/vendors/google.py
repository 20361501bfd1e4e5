"""Gemini's protocol as its server speaks it, built from the types of its SDK.

Source: https://ai.google.dev/api/generate-content https://ai.google.dev/gemini-api/docs/thought-signatures
"""

import json
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import google.genai.types as sdk

from aiserver.providers.adapters.google import GOOGLE
from aiserver.providers.request import ProviderRequest
from tests.providers.fake_provider import FakeResponse
from tests.vendors import semantics
from tests.vendors.google_body import check_request
from tests.vendors.semantics import MediaPart, Request, Response, TextPart, Tool, ToolCall, ToolResult

STOPS = {"stop": "STOP", "length": "MAX_TOKENS", "tool_calls": "STOP", "content_filter": "SAFETY"}
CHOICES = {"AUTO": "auto", "VALIDATED": "auto", "ANY": "required", "NONE": "none"}
STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
RPC = "type.googleapis.com/google.rpc"
SIGNATURE = b"a signature"
CHUNK_CHARS = 3  # letters of a text per event


class GoogleDialect:
    """dialect.Dialect"""

    type = "google"
    translator = GOOGLE
    model = "gemini-3.8-flash"
    has_urls = True
    counts_reasoning = True
    stream_type = "text/event-stream"
    headers: Mapping[str, str] = MappingProxyType({})  # the response id is in the body

    def credential(self, key: str) -> tuple[str, str]:
        return "x-goog-api-key", key

    def listing(self, models: list[str]) -> bytes:
        methods = {"supportedGenerationMethods": ["generateContent", "countTokens"]}
        models_page: list[Any] = [{"name": f"models/{id}", "version": "1", **methods} for id in models]
        embedder = {"name": "models/embedder", "version": "1", "supportedGenerationMethods": ["embedContent"]}
        return json.dumps({"models": [*models_page, embedder]}).encode()

    def parse_request(self, request: ProviderRequest) -> Request:
        model, streams, body = check_request(request)
        return _request(model, streams, body)

    def model_turns(self, body: dict[str, Any]) -> list[Any]:
        return [turn["parts"] for turn in body["contents"] if turn["role"] == "model"]

    def model_turn(self, response: dict[str, Any]) -> Any:
        parts: list[dict[str, Any]] = response["candidates"][0]["content"]["parts"]
        is_plain = all("functionCall" in part or "thoughtSignature" not in part for part in parts)
        return [part for part in parts if not part.get("thought")] if is_plain else parts

    def encode_response(self, response: Response) -> bytes:
        return _dump(_response(response, list(_parts(response)), STOPS[response.finish]))

    def encode_events(self, response: Response) -> list[bytes]:
        parts = [part for full_part in _parts(response) for part in _split_part(full_part)]
        chunks = [_response(response, [part], None) for part in parts]
        last = _response(response, [sdk.Part(text="")], STOPS[response.finish])
        return [b"data: %b\r\n\r\n" % _dump(chunk) for chunk in [*chunks, last]]

    def encode_frame(self, event: bytes) -> bytes:
        return event

    def error_response(self, status: int, message: str) -> FakeResponse:
        waits = [{"@type": f"{RPC}.RetryInfo", "retryDelay": "6.5s"}] if status == 429 else []
        details = [{"@type": f"{RPC}.RequestInfo", "requestId": "req_1"}, *waits]
        error = {"code": status, "message": message, "status": STATUSES.get(status, "UNKNOWN"), "details": details}
        return FakeResponse(status, json.dumps({"error": error}).encode(), {"content-type": "application/json"})

    def error_event(self, message: str) -> bytes:
        error = {"code": 503, "message": message, "status": "UNAVAILABLE"}
        return b"data: %b\r\n\r\n" % json.dumps({"error": error}).encode()


def _request(model: str, streams: bool, body: dict[str, Any]) -> Request:
    config = body.get("generationConfig", {})
    calling = body.get("toolConfig", {}).get("functionCallingConfig", {})
    allowed = calling.get("allowedFunctionNames", [])
    declared = [tool for tools in body.get("tools", ()) for tool in tools["functionDeclarations"]]
    return Request(
        model=model,
        system=tuple(part["text"] for part in body.get("systemInstruction", {"parts": ()})["parts"]),
        turns=semantics.merge_turns(
            [(t["role"] == "model", [_part(part) for part in t["parts"]]) for t in body["contents"]]
        ),
        tools=tuple(_tool(tool) for tool in declared),
        choice=f"[{allowed[0]}]" if allowed else CHOICES.get(calling.get("mode")),
        schema=config.get("responseJsonSchema"),
        max_tokens=config.get("maxOutputTokens"),
        temperature=config.get("temperature"),
        top_p=config.get("topP"),
        stop=tuple(config.get("stopSequences", ())),
        streams=streams,
    )


def _tool(tool: dict[str, Any]) -> Tool:
    return Tool(
        tool["name"], tool.get("description"), tool.get("parametersJsonSchema", {"type": "object", "properties": {}})
    )


def _part(part: dict[str, Any]) -> semantics.Part:
    match part:
        case {"text": text}:
            return TextPart(text)
        case {"inlineData": {"data": data, "mimeType": media_type}}:
            return MediaPart(data, media_type)
        case {"fileData": {"fileUri": url}}:
            return MediaPart(url)
        case {"functionCall": {"id": id, "name": name, "args": args}}:
            return ToolCall(id, name, args)
        case {"functionResponse": {"id": id, "response": {"output": text}}}:
            return ToolResult(id, text)
        case {"functionResponse": {"id": id, "response": response}}:
            return ToolResult(id, json.dumps(response))
        case _:
            raise AssertionError(part)


def _parts(response: Response) -> Iterator[sdk.Part]:
    """Signed as by Gemini 3: the first call or, without calls, the last text of a response with reasoning."""
    if response.reasoning:
        yield sdk.Part(text=response.reasoning, thought=True)
    if response.text:
        is_signed = bool(response.reasoning and not response.calls)
        yield sdk.Part(text=response.text, thought_signature=SIGNATURE if is_signed else None)
    for i, call in enumerate(response.calls):
        function_call = sdk.FunctionCall(id=call.id, name=call.name, args=call.arguments)
        yield sdk.Part(function_call=function_call, thought_signature=None if i else SIGNATURE)


def _split_part(part: sdk.Part) -> list[sdk.Part]:
    """Split a text into chunks followed by its signature; a call is one chunk."""
    if part.text is None:
        return [part]
    texts = [part.text[start : start + CHUNK_CHARS] for start in range(0, len(part.text), CHUNK_CHARS)]
    pieces = [sdk.Part(text=text, thought=part.thought) for text in texts]
    signature_part = [sdk.Part(text="", thought_signature=part.thought_signature)] if part.thought_signature else []
    return pieces + signature_part


def _response(response: Response, parts: list[sdk.Part], finish: str | None) -> sdk.GenerateContentResponse:
    usage = response.usage
    usage_metadata = sdk.GenerateContentResponseUsageMetadata(
        prompt_token_count=usage.prompt,
        cached_content_token_count=usage.cached,
        candidates_token_count=usage.completion - usage.reasoning,
        thoughts_token_count=usage.reasoning,
        total_token_count=usage.prompt + usage.completion,
    )
    reason = sdk.FinishReason(finish) if finish else None
    candidate = sdk.Candidate(content=sdk.Content(role="model", parts=parts), finish_reason=reason, index=0)
    fields = {"response_id": "req_1", "model_version": "gemini-3.8-flash", "usage_metadata": usage_metadata}
    return sdk.GenerateContentResponse(candidates=[candidate], **fields)


def _dump(response: sdk.GenerateContentResponse) -> bytes:
    return response.model_dump_json(by_alias=True, exclude_none=True).encode()
