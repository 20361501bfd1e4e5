"""What Amazon Bedrock's Converse API has words for; what differs from model to model is in models.py.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
"""

import hashlib
import re

from aiserver.providers.translation.capabilities import Capabilities, Mapped, PassThrough, Unsupported

MAX_ID = 64
_INVALID_ID_CHARS = re.compile(r"[^a-zA-Z0-9_.:-]")


def normalize_call_id(id: str) -> str:
    """An id of another vendor's may be what one here must not."""
    return _INVALID_ID_CHARS.sub("_", id) if len(id) <= MAX_ID else hashlib.sha256(id.encode()).hexdigest()


USE_MODEL_FIELDS = "what a model of its own has for that stands in `bedrock.additionalModelRequestFields`"

CAPABILITIES = Capabilities(
    "Amazon Bedrock",
    "bedrock",
    {
        "model": Mapped("in the path: a model's id, or the ARN or id of an inference profile"),
        "messages": Mapped("`messages`; turns of one role after each other become one"),
        "messages[].role: system": Mapped("`system`, all of them, in order; wherever they stood"),
        "messages[].role: developer": Mapped("as system"),
        "messages[].role: user": Mapped("`user`"),
        "messages[].role: assistant": Mapped("`assistant`"),
        "messages[].role: tool": Mapped("`toolResult` in a turn of the user's"),
        "messages[].name": Mapped("written before the text: `alice: …`; a tool is known by its call"),
        "messages[].tool_calls": Mapped(
            "`toolUse`; what an id may not hold becomes `_`, one of more than 64 letters its hash, and one empty or "
            "repeated becomes distinct"
        ),
        "messages[].reasoning_content": Mapped(
            "not sent: only reasoning with its signature can be, which `bedrock.content` of the answer has"
        ),
        "messages[].reasoning": Mapped("as reasoning_content"),
        "messages[].parsed": Mapped("not sent: the content again, as OpenAI's client read it"),
        "messages[].tool_calls[].function.parsed_arguments": Mapped("not sent: the arguments again, likewise"),
        "messages[].tool_calls[].index": Mapped("not sent: a place in a stream"),
        "messages[].refusal": Mapped("`text`"),
        "messages[].annotations": Mapped("not sent: notes for a reader of the text"),
        "messages[].content[].text": Mapped(
            "`text`; one of white space only is left out; with `bedrock` the block that stands there, as `guardContent`"
        ),
        "messages[].content[].refusal": Mapped("`text`"),
        "messages[].content[].image_url": Mapped("`image`: data and s3 URLs of PNG, JPEG, GIF, WebP"),
        "messages[].content[].image_url (assistant)": Unsupported("a turn of the assistant's holds no images"),
        "messages[].content[].image_url (tool)": Mapped("`image`"),
        "messages[].content[].image_url.detail": Unsupported("it looks at each image in one way"),
        "messages[].content[].file": Mapped(
            "`document`: data and s3 URLs of PDF, Word, Excel, CSV, HTML, Markdown, text; its name less what a name "
            "may not hold, and less its ending, with a number where another document of the request has it"
        ),
        "messages[].content[].file (tool)": Mapped("`document`"),
        "messages[].content[].file (assistant)": Unsupported("a turn of the assistant's holds no files"),
        "messages[].content[].file.file_id": Unsupported(
            "the id is another service's; an s3 URL in `file_data` can be"
        ),
        "messages[].content[].input_audio": Mapped("`audio`"),
        "messages[].content[].input_audio (tool)": Unsupported("a tool's result holds no sound"),
        "messages[].content[].input_audio (assistant)": Unsupported("a turn of the assistant's holds no sound"),
        "messages[].content[].cache_control": Mapped("a `cachePoint` after it, with its `ttl`"),
        "messages[].audio": Unsupported("it says nothing aloud"),
        "messages[].function_call": Unsupported("use tool_calls"),
        "tools": Mapped(
            "`toolConfig.tools`; needed wherever messages hold calls or their results; a schema without a type gets "
            "`type: object`"
        ),
        "tools[].function.strict": Mapped("`toolSpec.strict`"),
        "tools[].cache_control": Mapped("a `cachePoint` after it, with its `ttl`"),
        "tool_choice": Mapped(
            "`toolConfig.toolChoice`: `auto`, `any`, `tool`; `none`: the tools are not sent, and it is refused where "
            "they must be, since messages hold calls or their results; without tools not sent, `required` and a "
            "function refused"
        ),
        "parallel_tool_calls": Mapped(
            "`false`: of Claude `additionalModelRequestFields.tool_choice`, with all of `tool_choice`; others are not "
            "told, and the first of several calls in an answer is"
        ),
        "functions": Unsupported("use tools"),
        "function_call": Unsupported("use tool_choice"),
        "response_format": Mapped("`json_schema`: `outputConfig.textFormat`; `json_object`: refused"),
        "max_completion_tokens": Mapped("`inferenceConfig.maxTokens`"),
        "max_tokens": Mapped(
            "`inferenceConfig.maxTokens`; without it what the model has, and 32,000 where it is told how many tokens "
            "to reason with"
        ),
        "temperature": PassThrough("inferenceConfig.temperature", "at most 1"),
        "top_p": PassThrough("inferenceConfig.topP"),
        "stop": Mapped("`inferenceConfig.stopSequences`"),
        "reasoning_effort": Mapped(
            "of Claude `thinking` and `outputConfig.effort`, or before 4.6 `thinking.budget_tokens`; of Nova 2 "
            "`reasoningConfig`; of gpt-oss `reasoning_effort`; of OpenAI's other models `reasoning.effort`; of all "
            "others refused"
        ),
        "user": Mapped("`requestMetadata.user`: it stands in the log of invocations"),
        "safety_identifier": Mapped("`requestMetadata.safety_identifier`: it stands in the log of invocations"),
        "metadata": Mapped("`requestMetadata`: it stands in the log of invocations; at most 256 letters each"),
        "service_tier": Mapped("`serviceTier`: `default`, `flex`, `priority`; `auto` says nothing; others refused"),
        "stream": Mapped("`true`: `converse-stream` in the path"),
        "stream_options": Mapped("`include_usage`: a last event tells the usage; `include_obfuscation`: refused"),
        "n": Unsupported("it gives one answer", allowed_values=("1",)),
        "frequency_penalty": Unsupported(USE_MODEL_FIELDS, allowed_values=("0", "0.0")),
        "presence_penalty": Unsupported(USE_MODEL_FIELDS, allowed_values=("0", "0.0")),
        "logit_bias": Unsupported(USE_MODEL_FIELDS, allowed_values=("{}",)),
        "logprobs": Unsupported(allowed_values=("false",)),
        "top_logprobs": Unsupported(allowed_values=("0",)),
        "seed": Unsupported(USE_MODEL_FIELDS),
        "modalities": Unsupported("it writes text", allowed_values=('["text"]',)),
        "audio": Unsupported("it says nothing aloud"),
        "prediction": Unsupported(),
        "verbosity": Unsupported(USE_MODEL_FIELDS, allowed_values=('"medium"',)),
        "store": Unsupported("it keeps no answers", allowed_values=("false",)),
        "prompt_cache_key": Unsupported("mark what to cache by cache_control"),
        "prompt_cache_options": Unsupported("mark what to cache by cache_control"),
        "prompt_cache_retention": Unsupported("mark what to cache by cache_control"),
        "moderation": Unsupported("a guardrail stands in `bedrock.guardrailConfig`"),
        "web_search_options": Unsupported("its own tool for that stands in `bedrock.toolConfig.tools`"),
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
EQUIVALENT_STOP_REASONS = ("end_turn", "max_tokens", "tool_use")  # the others are told beside what OpenAI has for them
# Answers that are none: the model wrote what Bedrock itself cannot read.
CONTENT_FAILURES = {
    "malformed_model_output": "The model's output cannot be read",
    "malformed_tool_use": "The model called a tool in a way that cannot be read",
}

# https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html#API_runtime_Converse_Errors
# Two have a status that would be misread: a model that took too long has been at work (408: OpenAI's SDK would ask
# again), and one that failed is no fault of the request's (424).
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
# A signature or credentials that AWS does not take, whatever their status.
# https://docs.aws.amazon.com/bedrock/latest/APIReference/CommonErrors.html
CREDENTIAL_ERRORS = (
    *("ExpiredTokenException", "IncompleteSignature", "IncompleteSignatureException", "InvalidSignatureException"),
    *("MissingAuthenticationToken", "MissingAuthenticationTokenException", "UnrecognizedClientException"),
)
STATUS_OVERRIDES = {408: 504, 424: 502}
# A 400 of whose words the model's name is the matter, so that it is a 404 as at OpenAI's.
# https://github.com/strands-agents/harness-sdk/issues/38 https://github.com/mlcommons/modelbench/issues/1654
UNKNOWN_MODEL_PREFIXES = (
    "The provided model identifier is invalid",
    "The provided model doesn't support on-demand throughput",
    "Invocation of model ID ",
    "This action doesn't support the model that you provided",
)
