"""The request fields that Gemini's generateContent supports, and its tables of models, media types and reasons.

Source: https://ai.google.dev/api/generate-content
"""

from aiserver.providers.adapters.base.capabilities import Capabilities, Mapped, PassThrough, Unsupported

AUTOMATIC_CACHING = "not sent: Gemini caches common prefixes automatically; set a cache in `google.cachedContent`"

CAPABILITIES = Capabilities(
    "Google Gemini",
    "google",
    {
        "model": Mapped("in the path, as `models/…` unless it is a full name"),
        "messages": Mapped(
            "`contents`; consecutive messages of one role are merged, empty ones are skipped, and tool results are "
            "separate contents"
        ),
        "messages[].role: system": Mapped("`systemInstruction`: all system messages in order, from any position"),
        "messages[].role: developer": Mapped("as system"),
        "messages[].role: user": Mapped("`user`"),
        "messages[].role: assistant": Mapped("`model`"),
        "messages[].role: tool": Mapped(
            "`functionResponse` in a user message: a JSON object unchanged, other text as `output`"
        ),
        "messages[].name": Mapped(
            "prefix of the text: `alice: …`; in a tool message the tool's name, when its call is unknown"
        ),
        "messages[].tool_calls": Mapped("`functionCall`; empty and repeated ids become unique"),
        "messages[].reasoning_content": Mapped(
            "not sent: only signed reasoning is accepted, and `google.parts` of the response contains it"
        ),
        "messages[].reasoning": Mapped("as reasoning_content"),
        "messages[].parsed": Mapped("not sent: the parsed content that OpenAI's client adds"),
        "messages[].tool_calls[].function.parsed_arguments": Mapped(
            "not sent: the parsed arguments that OpenAI's client adds"
        ),
        "messages[].tool_calls[].index": Mapped("not sent: an index within a stream"),
        "messages[].refusal": Mapped("`text`"),
        "messages[].annotations": Mapped("not sent: annotations of the text for readers"),
        "messages[].content[].text": Mapped("`text`"),
        "messages[].content[].refusal": Mapped("`text`"),
        "messages[].content[].image_url": Mapped("data: `inlineData`; https and gs URLs: `fileData`"),
        "messages[].content[].image_url (assistant)": Mapped("as in a user message"),
        "messages[].content[].image_url (tool)": Mapped("`functionResponse.parts`"),
        "messages[].content[].image_url.detail": Mapped("`mediaResolution`; rejected before Gemini 3"),
        "messages[].content[].file": Mapped("as an image, without its name"),
        "messages[].content[].file (assistant)": Mapped("as in a user message"),
        "messages[].content[].file (tool)": Mapped("`functionResponse.parts`"),
        "messages[].content[].file.file_id": Unsupported(
            "OpenAI's file ids are not valid here; use the URI of a Gemini file in file_data"
        ),
        "messages[].content[].input_audio": Mapped("`inlineData`"),
        "messages[].content[].input_audio (assistant)": Mapped("as in a user message"),
        "messages[].content[].input_audio (tool)": Mapped("`functionResponse.parts`"),
        "messages[].content[].cache_control": Mapped(AUTOMATIC_CACHING),
        "messages[].audio": Unsupported("audio output is not stored"),
        "messages[].function_call": Unsupported("use tool_calls"),
        "tools": Mapped(
            "`tools[].functionDeclarations`, with `parametersJsonSchema`; a schema without a type gets `type: object`"
        ),
        "tools[].function.strict": Mapped("mode `VALIDATED` for all tools; `ANY` always enforces their schemas"),
        "tools[].cache_control": Mapped(AUTOMATIC_CACHING),
        "tool_choice": Mapped(
            "`toolConfig.functionCallingConfig`: `AUTO`, `NONE`, `ANY`, `allowedFunctionNames`; without "
            "tools not sent, `required` and a function are rejected"
        ),
        "parallel_tool_calls": Mapped(
            "not sent: with `false`, only the first of several calls in a response is returned"
        ),
        "functions": Unsupported("use tools"),
        "function_call": Unsupported("use tool_choice"),
        "response_format": Mapped(
            "`json_schema`: `responseJsonSchema`, without its name; `json_object`: `responseMimeType`"
        ),
        "max_completion_tokens": Mapped("`generationConfig.maxOutputTokens`"),
        "max_tokens": Mapped("`generationConfig.maxOutputTokens`"),
        "temperature": PassThrough("generationConfig.temperature"),
        "top_p": PassThrough("generationConfig.topP"),
        "stop": Mapped("`generationConfig.stopSequences`"),
        "reasoning_effort": Mapped("`thinkingConfig.thinkingLevel`; before Gemini 3 `thinkingConfig.thinkingBudget`"),
        "user": Unsupported("requests have no user id"),
        "safety_identifier": Unsupported("requests have no user id"),
        "service_tier": Mapped("`auto`: not set; `default`: `standard`; `flex` and `priority`: the same"),
        "stream": Mapped("another method: `streamGenerateContent`"),
        "stream_options": Mapped("`include_usage`: the last event contains the usage; `include_obfuscation`: rejected"),
        "n": PassThrough("generationConfig.candidateCount"),
        "frequency_penalty": PassThrough("generationConfig.frequencyPenalty"),
        "presence_penalty": PassThrough("generationConfig.presencePenalty"),
        "logit_bias": Unsupported(allowed_values=("{}",)),
        "logprobs": PassThrough("generationConfig.responseLogprobs"),
        "top_logprobs": PassThrough("generationConfig.logprobs"),
        "seed": PassThrough("generationConfig.seed"),
        "modalities": Unsupported(
            "set other modalities in `google.generationConfig.responseModalities`", allowed_values=('["text"]',)
        ),
        "audio": Unsupported("use `google.generationConfig.speechConfig`"),
        "prediction": Unsupported(),
        "verbosity": Unsupported(allowed_values=('"medium"',)),
        "metadata": Unsupported("responses have no metadata", allowed_values=("{}",)),
        "store": PassThrough("store", "whether Google logs the request; overrides the project's setting"),
        "prompt_cache_key": Mapped(AUTOMATIC_CACHING),
        "prompt_cache_options": Unsupported("use `google.cachedContent`"),
        "prompt_cache_retention": Unsupported("use `google.cachedContent`", allowed_values=('"in_memory"',)),
        "moderation": Unsupported(),
        "web_search_options": Unsupported("use the search tool in `google.tools`"),
    },
    accepts_blank_text=True,
)

# Name prefixes of models before Gemini 3: they take a number of reasoning tokens, newer ones a level.
# https://ai.google.dev/gemini-api/docs/thinking
MODELS_BEFORE_3 = ("gemini-1.", "gemini-2.", "gemini-robotics-er-1.")
# As in Google's OpenAI-compatible endpoint. Gemini 2.5 Pro, and all models since Gemini 3, always reason.
# https://ai.google.dev/gemini-api/docs/openai#thinking
BUDGETS = {"none": 0, "minimal": 1_024, "low": 1_024, "medium": 8_192, "high": 24_576}
ALWAYS_REASONS = "gemini-2.5-pro"
# https://github.com/googleapis/python-genai/blob/main/google/genai/types.py (ThinkingLevel); a model takes some only.
THINKING_LEVELS = {"minimal": "MINIMAL", "low": "LOW", "medium": "MEDIUM", "high": "HIGH", "xhigh": "XHIGH"}

# Marks a tool call without a signature, which Gemini 3 and later reject otherwise.
# https://ai.google.dev/gemini-api/docs/thought-signatures#faqs
PLACEHOLDER_SIGNATURE = "skip_thought_signature_validator"

TIERS = {"auto": None, "default": "standard", "flex": "flex", "priority": "priority"}
# https://ai.google.dev/gemini-api/docs/media-resolution: per part since Gemini 3
MEDIA_RESOLUTIONS = {"low": "MEDIA_RESOLUTION_LOW", "high": "MEDIA_RESOLUTION_HIGH"}
# https://ai.google.dev/gemini-api/docs/audio#supported-formats
AUDIO_TYPES = {
    "wav": "audio/wav",
    "mp3": "audio/mp3",
    "aiff": "audio/aiff",
    "aac": "audio/aac",
    "ogg": "audio/ogg",
    "flac": "audio/flac",
}
# By the extension of a URL's path. https://ai.google.dev/gemini-api/docs/file-input-methods
MEDIA_TYPES = AUDIO_TYPES | {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "heic": "image/heic",
    "heif": "image/heif",
    "gif": "image/gif",
    "pdf": "application/pdf",
    "txt": "text/plain",
    "md": "text/markdown",
    "html": "text/html",
    "csv": "text/csv",
    "xml": "text/xml",
    "json": "application/json",
    "mp4": "video/mp4",
    "mpeg": "video/mpeg",
    "mov": "video/mov",
    "webm": "video/webm",
}

FINISH_REASONS = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "CONTINUATION": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "LANGUAGE": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter",
    "MODEL_ARMOR": "content_filter",
    "ESCALATION": "content_filter",
}
EQUIVALENT_STOP_REASONS = ("STOP", "MAX_TOKENS")  # others are also sent as a vendor-specific member
# Finish reasons that are failures, and their status. Their meaning is documented in
# https://github.com/googleapis/python-genai/blob/main/google/genai/types.py (FinishReason)
FAILURES = {
    "MALFORMED_FUNCTION_CALL": 500,
    "UNEXPECTED_TOOL_CALL": 500,
    "TOO_MANY_TOOL_CALLS": 500,
    "MALFORMED_RESPONSE": 500,
    "MISSING_THOUGHT_SIGNATURE": 400,
    "PUP_LIMITED_DISABLED": 403,  # the account is limited or disabled
}
FAILURES_WITHOUT_CONTENT = {"OTHER": 500, "IMAGE_OTHER": 500, "NO_IMAGE": 500}  # when the candidate has no content
