"""The request fields that Amazon Bedrock's Converse API supports; models.py contains the differences between models.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
"""

import hashlib
import re

from aiserver.providers.adapters.base.capabilities import Capabilities, Mapped, PassThrough, Unsupported

MAX_ID = 64
_INVALID_ID_CHARS = re.compile(r"[^a-zA-Z0-9_.:-]")


def normalize_call_id(id: str) -> str:
    """Replace the characters of another vendor's id that Bedrock does not allow; hash an id that is too long."""
    return _INVALID_ID_CHARS.sub("_", id) if len(id) <= MAX_ID else hashlib.sha256(id.encode()).hexdigest()


USE_MODEL_FIELDS = "use the model's own field in `bedrock.additionalModelRequestFields`"

CAPABILITIES = Capabilities(
    "Amazon Bedrock",
    "bedrock",
    {
        "model": Mapped("in the path: a model id, or the ARN or id of an inference profile"),
        "messages": Mapped("`messages`; consecutive messages of one role are merged"),
        "messages[].role: system": Mapped("`system`: all system messages in order, from any position"),
        "messages[].role: developer": Mapped("as system"),
        "messages[].role: user": Mapped("`user`"),
        "messages[].role: assistant": Mapped("`assistant`"),
        "messages[].role: tool": Mapped("`toolResult` in a user message"),
        "messages[].name": Mapped("prefix of the text: `alice: …`; a tool's name is taken from its call"),
        "messages[].tool_calls": Mapped(
            "`toolUse`; invalid characters of an id become `_`; an id of more than 64 characters becomes its hash; "
            "empty and repeated ids become unique"
        ),
        "messages[].reasoning_content": Mapped(
            "not sent: only signed reasoning is accepted, and `bedrock.content` of the response contains it"
        ),
        "messages[].reasoning": Mapped("as reasoning_content"),
        "messages[].parsed": Mapped("not sent: the parsed content that OpenAI's client adds"),
        "messages[].tool_calls[].function.parsed_arguments": Mapped(
            "not sent: the parsed arguments that OpenAI's client adds"
        ),
        "messages[].tool_calls[].index": Mapped("not sent: an index within a stream"),
        "messages[].refusal": Mapped("`text`"),
        "messages[].annotations": Mapped("not sent: annotations of the text for readers"),
        "messages[].content[].text": Mapped(
            "`text`; texts of only white space are skipped; `bedrock` replaces the block, for example by `guardContent`"
        ),
        "messages[].content[].refusal": Mapped("`text`"),
        "messages[].content[].image_url": Mapped("`image`: data and s3 URLs of PNG, JPEG, GIF and WebP"),
        "messages[].content[].image_url (assistant)": Unsupported("assistant messages cannot contain images"),
        "messages[].content[].image_url (tool)": Mapped("`image`"),
        "messages[].content[].image_url.detail": Unsupported("the image resolution cannot be selected"),
        "messages[].content[].file": Mapped(
            "`document`: data and s3 URLs of PDF, Word, Excel, CSV, HTML, Markdown and text; its name without the "
            "extension and invalid characters, and with a number when another document of the request has it"
        ),
        "messages[].content[].file (tool)": Mapped("`document`"),
        "messages[].content[].file (assistant)": Unsupported("assistant messages cannot contain files"),
        "messages[].content[].file.file_id": Unsupported(
            "OpenAI's file ids are not valid here; use an s3 URL in `file_data`"
        ),
        "messages[].content[].input_audio": Mapped("`audio`"),
        "messages[].content[].input_audio (tool)": Unsupported("tool results cannot contain audio"),
        "messages[].content[].input_audio (assistant)": Unsupported("assistant messages cannot contain audio"),
        "messages[].content[].cache_control": Mapped("`cachePoint` after it, with its `ttl`"),
        "messages[].audio": Unsupported("no audio output"),
        "messages[].function_call": Unsupported("use tool_calls"),
        "tools": Mapped(
            "`toolConfig.tools`; required when messages contain tool calls or results; a schema without a type gets "
            "`type: object`"
        ),
        "tools[].function.strict": Mapped("`toolSpec.strict`"),
        "tools[].cache_control": Mapped("`cachePoint` after it, with its `ttl`"),
        "tool_choice": Mapped(
            "`toolConfig.toolChoice`: `auto`, `any`, `tool`; `none`: the tools are not sent, and rejected when they "
            "are required, since messages contain tool calls or results; without tools not sent, `required` and a "
            "function are rejected"
        ),
        "parallel_tool_calls": Mapped(
            "`false`: for Claude `additionalModelRequestFields.tool_choice`, together with `tool_choice`; for others "
            "not sent, and only the first of several calls in a response is returned"
        ),
        "functions": Unsupported("use tools"),
        "function_call": Unsupported("use tool_choice"),
        "response_format": Mapped("`json_schema`: `outputConfig.textFormat`; `json_object`: rejected"),
        "max_completion_tokens": Mapped("`inferenceConfig.maxTokens`"),
        "max_tokens": Mapped(
            "`inferenceConfig.maxTokens`; default: the model's, or 32,000 for models with a reasoning token budget"
        ),
        "temperature": PassThrough("inferenceConfig.temperature", "at most 1"),
        "top_p": PassThrough("inferenceConfig.topP"),
        "stop": Mapped("`inferenceConfig.stopSequences`"),
        "reasoning_effort": Mapped(
            "Claude: `thinking` and `outputConfig.effort`, before 4.6 `thinking.budget_tokens`; Nova 2: "
            "`reasoningConfig`; gpt-oss: `reasoning_effort`; OpenAI's other models: `reasoning.effort`; all others: "
            "rejected"
        ),
        "user": Mapped("`requestMetadata.user`, which appears in the invocation log"),
        "safety_identifier": Mapped("`requestMetadata.safety_identifier`, which appears in the invocation log"),
        "metadata": Mapped("`requestMetadata`, which appears in the invocation log; at most 256 characters each"),
        "service_tier": Mapped("`serviceTier`: `default`, `flex`, `priority`; `auto`: not set; others rejected"),
        "stream": Mapped("`true`: `converse-stream` in the path"),
        "stream_options": Mapped("`include_usage`: the last event contains the usage; `include_obfuscation`: rejected"),
        "n": Unsupported("one response per request", allowed_values=("1",)),
        "frequency_penalty": Unsupported(USE_MODEL_FIELDS, allowed_values=("0", "0.0")),
        "presence_penalty": Unsupported(USE_MODEL_FIELDS, allowed_values=("0", "0.0")),
        "logit_bias": Unsupported(USE_MODEL_FIELDS, allowed_values=("{}",)),
        "logprobs": Unsupported(allowed_values=("false",)),
        "top_logprobs": Unsupported(allowed_values=("0",)),
        "seed": Unsupported(USE_MODEL_FIELDS),
        "modalities": Unsupported("text output only", allowed_values=('["text"]',)),
        "audio": Unsupported("no audio output"),
        "prediction": Unsupported(),
        "verbosity": Unsupported(USE_MODEL_FIELDS, allowed_values=('"medium"',)),
        "store": Unsupported("responses are not stored", allowed_values=("false",)),
        "prompt_cache_key": Unsupported("use cache_control on content and tools"),
        "prompt_cache_options": Unsupported("use cache_control on content and tools"),
        "prompt_cache_retention": Unsupported("use cache_control on content and tools"),
        "moderation": Unsupported("use a guardrail in `bedrock.guardrailConfig`"),
        "web_search_options": Unsupported("use Bedrock's own tool in `bedrock.toolConfig.tools`"),
    },
    normalize_call_id,
)

TIERS = {"auto": None, "default": "default", "flex": "flex", "priority": "priority"}

FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}
EQUIVALENT_STOP_REASONS = ("end_turn", "max_tokens", "tool_use")  # others are also sent as a vendor-specific member
# Stop reasons of failed responses: Bedrock could not parse the model's output.
CONTENT_FAILURES = {
    "malformed_model_output": "The model's output cannot be parsed",
    "malformed_tool_use": "The model's tool call cannot be parsed",
}

# https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html#API_runtime_Converse_Errors
# Two statuses would mislead clients: 408, for which OpenAI's SDK would retry although the model has worked, and 424,
# although the failure of a model is not an error of the request.
STATUSES = {
    "ValidationException": 400,
    "AccessDeniedException": 403,
    "ResourceNotFoundException": 404,
    "ThrottlingException": 429,
    "ModelNotReadyException": 429,
    "InternalServerException": 500,
    "ModelErrorException": 502,
    "ModelStreamErrorException": 502,
    "ServiceUnavailableException": 503,
    "ModelTimeoutException": 504,
    **dict.fromkeys(CONTENT_FAILURES, 502),
}
# AWS rejected the signature or the credentials, with any status.
# https://docs.aws.amazon.com/bedrock/latest/APIReference/CommonErrors.html
CREDENTIAL_ERRORS = (
    *("ExpiredTokenException", "IncompleteSignature", "IncompleteSignatureException", "InvalidSignatureException"),
    *("MissingAuthenticationToken", "MissingAuthenticationTokenException", "UnrecognizedClientException"),
)
STATUS_OVERRIDES = {408: 504, 424: 502}
# Messages of a 400 that is about the model's name: mapped to a 404, as at OpenAI.
# https://github.com/strands-agents/harness-sdk/issues/38 https://github.com/mlcommons/modelbench/issues/1654
UNKNOWN_MODEL_PREFIXES = (
    "The provided model identifier is invalid",
    "The provided model doesn't support on-demand throughput",
    "Invocation of model ID ",
    "This action doesn't support the model that you provided",
)
