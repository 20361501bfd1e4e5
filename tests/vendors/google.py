"""Gemini as its own server speaks, made of its own SDK's types.

Source: https://ai.google.dev/api/generate-content https://ai.google.dev/gemini-api/docs/thought-signatures
"""

import json
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import google.genai.types as sdk

from aiserver.providers.google import GOOGLE
from aiserver.providers.http import ProviderRequest
from tests.providers.fake_provider import Said
from tests.vendors import semantics
from tests.vendors.google_body import taken
from tests.vendors.semantics import Answer, Called, Media, Request, Result, ToolOffered, Words

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
PIECE = 3  # letters of a text that come at once


class GoogleDialect:
    """dialect.Dialect"""

    type = "google"
    vendor = GOOGLE
    model = "gemini-3.8-flash"
    has_urls = True
    counts_reasoning = True
    stream_type = "text/event-stream"
    headers: Mapping[str, str] = MappingProxyType({})  # an answer's id stands within it

    def credential(self, key: str) -> tuple[str, str]:
        return "x-goog-api-key", key

    def listing(self, models: list[str]) -> bytes:
        ways = {"supportedGenerationMethods": ["generateContent", "countTokens"]}
        listed: list[Any] = [{"name": f"models/{id}", "version": "1", **ways} for id in models]
        other = {"name": "models/embedder", "version": "1", "supportedGenerationMethods": ["embedContent"]}
        return json.dumps({"models": [*listed, other]}).encode()

    def read(self, asked: ProviderRequest) -> Request:
        model, streams, body = taken(asked)
        return _request(model, streams, body)

    def turns(self, sent: dict[str, Any]) -> list[Any]:
        return [turn["parts"] for turn in sent["contents"] if turn["role"] == "model"]

    def turn(self, message: dict[str, Any]) -> Any:
        parts: list[dict[str, Any]] = message["candidates"][0]["content"]["parts"]
        is_plain = all("functionCall" in part or "thoughtSignature" not in part for part in parts)
        return [part for part in parts if not part.get("thought")] if is_plain else parts

    def message(self, answer: Answer) -> bytes:
        return _dump(_response(answer, list(_parts(answer)), STOPS[answer.finish]))

    def events(self, answer: Answer) -> list[bytes]:
        pieces = [piece for part in _parts(answer) for piece in _pieces(part)]
        said = [_response(answer, [piece], None) for piece in pieces]
        last = _response(answer, [sdk.Part(text="")], STOPS[answer.finish])
        return [b"data: %b\r\n\r\n" % _dump(one) for one in [*said, last]]

    def framed(self, event: bytes) -> bytes:
        return event

    def error(self, status: int, message: str) -> Said:
        waits = [{"@type": f"{RPC}.RetryInfo", "retryDelay": "6.5s"}] if status == 429 else []
        details = [{"@type": f"{RPC}.RequestInfo", "requestId": "req_1"}, *waits]
        told = {"code": status, "message": message, "status": STATUSES.get(status, "UNKNOWN"), "details": details}
        return Said(status, json.dumps({"error": told}).encode(), {"content-type": "application/json"})

    def failure(self, message: str) -> bytes:
        told = {"code": 503, "message": message, "status": "UNAVAILABLE"}
        return b"data: %b\r\n\r\n" % json.dumps({"error": told}).encode()


def _request(model: str, streams: bool, body: dict[str, Any]) -> Request:
    config = body.get("generationConfig", {})
    calling = body.get("toolConfig", {}).get("functionCallingConfig", {})
    allowed = calling.get("allowedFunctionNames", [])
    declared = [tool for tools in body.get("tools", ()) for tool in tools["functionDeclarations"]]
    return Request(
        model=model,
        system=tuple(part["text"] for part in body.get("systemInstruction", {"parts": ()})["parts"]),
        turns=semantics.turns([(t["role"] == "model", [_said(part) for part in t["parts"]]) for t in body["contents"]]),
        tools=tuple(_offered(tool) for tool in declared),
        choice=f"[{allowed[0]}]" if allowed else CHOICES.get(calling.get("mode")),
        schema=config.get("responseJsonSchema"),
        max_tokens=config.get("maxOutputTokens"),
        temperature=config.get("temperature"),
        top_p=config.get("topP"),
        stop=tuple(config.get("stopSequences", ())),
        streams=streams,
    )


def _offered(tool: dict[str, Any]) -> ToolOffered:
    return ToolOffered(
        tool["name"], tool.get("description"), tool.get("parametersJsonSchema", {"type": "object", "properties": {}})
    )


def _said(part: dict[str, Any]) -> semantics.Said:
    match part:
        case {"text": text}:
            return Words(text)
        case {"inlineData": {"data": data, "mimeType": media_type}}:
            return Media(data, media_type)
        case {"fileData": {"fileUri": url}}:
            return Media(url)
        case {"functionCall": {"id": id, "name": name, "args": args}}:
            return Called(id, name, args)
        case {"functionResponse": {"id": id, "response": {"output": text}}}:
            return Result(id, text)
        case {"functionResponse": {"id": id, "response": response}}:
            return Result(id, json.dumps(response))
        case _:
            raise AssertionError(part)


def _parts(answer: Answer) -> Iterator[sdk.Part]:
    """As Gemini 3 signs them: the first call, or else the last text of an answer that was thought about."""
    if answer.reasoning:
        yield sdk.Part(text=answer.reasoning, thought=True)
    if answer.text:
        signed = bool(answer.reasoning and not answer.calls)
        yield sdk.Part(text=answer.text, thought_signature=SIGNATURE if signed else None)
    for i, call in enumerate(answer.calls):
        made = sdk.FunctionCall(id=call.id, name=call.name, args=call.arguments)
        yield sdk.Part(function_call=made, thought_signature=None if i else SIGNATURE)


def _pieces(part: sdk.Part) -> list[sdk.Part]:
    """A text in pieces, and its signature after them; a call comes whole."""
    if part.text is None:
        return [part]
    texts = [part.text[at : at + PIECE] for at in range(0, len(part.text), PIECE)]
    pieces = [sdk.Part(text=text, thought=part.thought) for text in texts]
    signed = [sdk.Part(text="", thought_signature=part.thought_signature)] if part.thought_signature else []
    return pieces + signed


def _response(answer: Answer, parts: list[sdk.Part], finish: str | None) -> sdk.GenerateContentResponse:
    spent = answer.spent
    usage = sdk.GenerateContentResponseUsageMetadata(
        prompt_token_count=spent.prompt,
        cached_content_token_count=spent.cached,
        candidates_token_count=spent.completion - spent.reasoning,
        thoughts_token_count=spent.reasoning,
        total_token_count=spent.prompt + spent.completion,
    )
    reason = sdk.FinishReason(finish) if finish else None
    candidate = sdk.Candidate(content=sdk.Content(role="model", parts=parts), finish_reason=reason, index=0)
    told = {"response_id": "req_1", "model_version": "gemini-3.8-flash", "usage_metadata": usage}
    return sdk.GenerateContentResponse(candidates=[candidate], **told)


def _dump(made: sdk.GenerateContentResponse) -> bytes:
    return made.model_dump_json(by_alias=True, exclude_none=True).encode()
