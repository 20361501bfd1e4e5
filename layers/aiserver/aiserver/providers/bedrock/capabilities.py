"""What Amazon Bedrock's Converse API has words for; what differs from model to model is in models.py.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
"""

import hashlib
import re

from aiserver.providers.translation.capabilities import Passes, Refused, Translated, Words

MAX_ID = 64
_NOT_IN_AN_ID = re.compile(r"[^a-zA-Z0-9_.:-]")


def call_id(id: str) -> str:
    """An id of another vendor's may be what one here must not."""
    return _NOT_IN_AN_ID.sub("_", id) if len(id) <= MAX_ID else hashlib.sha256(id.encode()).hexdigest()


MODELS_OWN = "what a model of its own has for that stands in `bedrock.additionalModelRequestFields`"

WORDS = Words(
    "Amazon Bedrock",
    "bedrock",
    {
        "model": Translated("in the path: a model's id, or the ARN or id of an inference profile"),
        "messages": Translated("`messages`; turns of one role after each other become one"),
        "messages[].role: system": Translated("`system`, all of them, in order; wherever they stood"),
        "messages[].role: developer": Translated("as system"),
        "messages[].role: user": Translated("`user`"),
        "messages[].role: assistant": Translated("`assistant`"),
        "messages[].role: tool": Translated("`toolResult` in a turn of the user's"),
        "messages[].name": Translated("written before the text: `alice: …`; a tool is known by its call"),
        "messages[].tool_calls": Translated(
            "`toolUse`; what an id may not hold becomes `_`, one of more than 64 letters its hash, and one empty or "
            "repeated becomes distinct"
        ),
        "messages[].reasoning_content": Translated(
            "not sent: only reasoning with its signature can be, which `bedrock.content` of the answer has"
        ),
        "messages[].reasoning": Translated("as reasoning_content"),
        "messages[].parsed": Translated("not sent: the content again, as OpenAI's client read it"),
        "messages[].tool_calls[].function.parsed_arguments": Translated("not sent: the arguments again, likewise"),
        "messages[].tool_calls[].index": Translated("not sent: a place in a stream"),
        "messages[].refusal": Translated("`text`"),
        "messages[].annotations": Translated("not sent: notes for a reader of the text"),
        "messages[].content[].text": Translated(
            "`text`; one of white space only is left out; with `bedrock` the block that stands there, as `guardContent`"
        ),
        "messages[].content[].refusal": Translated("`text`"),
        "messages[].content[].image_url": Translated("`image`: data and s3 URLs of PNG, JPEG, GIF, WebP"),
        "messages[].content[].image_url (assistant)": Refused("a turn of the assistant's holds no images"),
        "messages[].content[].image_url (tool)": Translated("`image`"),
        "messages[].content[].image_url.detail": Refused("it looks at each image in one way"),
        "messages[].content[].file": Translated(
            "`document`: data and s3 URLs of PDF, Word, Excel, CSV, HTML, Markdown, text; its name less what a name "
            "may not hold, and less its ending, with a number where another document of the request has it"
        ),
        "messages[].content[].file (tool)": Translated("`document`"),
        "messages[].content[].file (assistant)": Refused("a turn of the assistant's holds no files"),
        "messages[].content[].file.file_id": Refused("the id is another service's; an s3 URL in `file_data` can be"),
        "messages[].content[].input_audio": Translated("`audio`"),
        "messages[].content[].input_audio (tool)": Refused("a tool's result holds no sound"),
        "messages[].content[].input_audio (assistant)": Refused("a turn of the assistant's holds no sound"),
        "messages[].content[].cache_control": Translated("a `cachePoint` after it, with its `ttl`"),
        "messages[].audio": Refused("it says nothing aloud"),
        "messages[].function_call": Refused("use tool_calls"),
        "tools": Translated(
            "`toolConfig.tools`; needed wherever messages hold calls or their results; a schema without a type gets "
            "`type: object`"
        ),
        "tools[].function.strict": Translated("`toolSpec.strict`"),
        "tools[].cache_control": Translated("a `cachePoint` after it, with its `ttl`"),
        "tool_choice": Translated(
            "`toolConfig.toolChoice`: `auto`, `any`, `tool`; `none`: the tools are not sent, and it is refused where "
            "they must be, since messages hold calls or their results; without tools not sent, `required` and a "
            "function refused"
        ),
        "parallel_tool_calls": Translated(
            "`false`: of Claude `additionalModelRequestFields.tool_choice`, with all of `tool_choice`; others are not "
            "told, and the first of several calls in an answer is"
        ),
        "functions": Refused("use tools"),
        "function_call": Refused("use tool_choice"),
        "response_format": Translated("`json_schema`: `outputConfig.textFormat`; `json_object`: refused"),
        "max_completion_tokens": Translated("`inferenceConfig.maxTokens`"),
        "max_tokens": Translated(
            "`inferenceConfig.maxTokens`; without it what the model has, and 32,000 where it is told how many tokens "
            "to reason with"
        ),
        "temperature": Passes("inferenceConfig.temperature", "at most 1"),
        "top_p": Passes("inferenceConfig.topP"),
        "stop": Translated("`inferenceConfig.stopSequences`"),
        "reasoning_effort": Translated(
            "of Claude `thinking` and `outputConfig.effort`, or before 4.6 `thinking.budget_tokens`; of Nova 2 "
            "`reasoningConfig`; of gpt-oss `reasoning_effort`; of OpenAI's other models `reasoning.effort`; of all "
            "others refused"
        ),
        "user": Translated("`requestMetadata.user`: it stands in the log of invocations"),
        "safety_identifier": Translated("`requestMetadata.safety_identifier`: it stands in the log of invocations"),
        "metadata": Translated("`requestMetadata`: it stands in the log of invocations; at most 256 letters each"),
        "service_tier": Translated("`serviceTier`: `default`, `flex`, `priority`; `auto` says nothing; others refused"),
        "stream": Translated("`true`: `converse-stream` in the path"),
        "stream_options": Translated("`include_usage`: a last event tells the usage; `include_obfuscation`: refused"),
        "n": Refused("it gives one answer", unless=("1",)),
        "frequency_penalty": Refused(MODELS_OWN, unless=("0", "0.0")),
        "presence_penalty": Refused(MODELS_OWN, unless=("0", "0.0")),
        "logit_bias": Refused(MODELS_OWN, unless=("{}",)),
        "logprobs": Refused(unless=("false",)),
        "top_logprobs": Refused(unless=("0",)),
        "seed": Refused(MODELS_OWN),
        "modalities": Refused("it writes text", unless=('["text"]',)),
        "audio": Refused("it says nothing aloud"),
        "prediction": Refused(),
        "verbosity": Refused(MODELS_OWN, unless=('"medium"',)),
        "store": Refused("it keeps no answers", unless=("false",)),
        "prompt_cache_key": Refused("mark what to cache by cache_control"),
        "prompt_cache_options": Refused("mark what to cache by cache_control"),
        "prompt_cache_retention": Refused("mark what to cache by cache_control"),
        "moderation": Refused("a guardrail stands in `bedrock.guardrailConfig`"),
        "web_search_options": Refused("its own tool for that stands in `bedrock.toolConfig.tools`"),
    },
    call_id,
)

TIERS = {"auto": None, "default": "default", "flex": "flex", "priority": "priority"}

STOPS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}
OPENAI_SAYS_IT = ("end_turn", "max_tokens", "tool_use")  # the others are told beside what OpenAI has for them
# Answers that are none: the model wrote what Bedrock itself cannot read.
FAILURES = {
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
    **dict.fromkeys(FAILURES, 502),
}
# A signature or credentials that AWS does not take, whatever their status.
# https://docs.aws.amazon.com/bedrock/latest/APIReference/CommonErrors.html
NOT_US = (
    *("ExpiredTokenException", "IncompleteSignature", "IncompleteSignatureException", "InvalidSignatureException"),
    *("MissingAuthenticationToken", "MissingAuthenticationTokenException", "UnrecognizedClientException"),
)
OTHERWISE = {408: 504, 424: 502}
# A 400 of whose words the model's name is the matter, so that it is a 404 as at OpenAI's.
# https://github.com/strands-agents/harness-sdk/issues/38 https://github.com/mlcommons/modelbench/issues/1654
NO_SUCH_MODEL = (
    "The provided model identifier is invalid",
    "The provided model doesn't support on-demand throughput",
    "Invocation of model ID ",
    "This action doesn't support the model that you provided",
)
