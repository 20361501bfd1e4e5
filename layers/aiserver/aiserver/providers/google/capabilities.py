"""What Gemini's generateContent has words for, and what differs from model to model.

Source: https://ai.google.dev/api/generate-content
"""

from aiserver.providers.translation.capabilities import Capabilities, Mapped, PassThrough, Unsupported

AUTOMATIC_CACHING = "not sent: it caches by itself what requests begin with; `google.cachedContent` names a cache"

CAPABILITIES = Capabilities(
    "Google Gemini",
    "google",
    {
        "model": Mapped("stands in the path, as `models/…` where it is not a full name"),
        "messages": Mapped(
            "`contents`; turns of one role after each other become one, one that says nothing is left out, "
            "and what tools answered stands apart"
        ),
        "messages[].role: system": Mapped("`systemInstruction`, all of them, in order; wherever they stood"),
        "messages[].role: developer": Mapped("as system"),
        "messages[].role: user": Mapped("`user`"),
        "messages[].role: assistant": Mapped("`model`"),
        "messages[].role: tool": Mapped(
            "`functionResponse` in a turn of the user's: an object as it is, other text as `output`"
        ),
        "messages[].name": Mapped("written before the text: `alice: …`; a tool's, where its call is not known"),
        "messages[].tool_calls": Mapped("`functionCall`; an id that is empty or repeated becomes distinct"),
        "messages[].reasoning_content": Mapped(
            "not sent: only reasoning with its signature is, which `google.parts` of the answer has"
        ),
        "messages[].reasoning": Mapped("as reasoning_content"),
        "messages[].parsed": Mapped("not sent: the content again, as OpenAI's client read it"),
        "messages[].tool_calls[].function.parsed_arguments": Mapped("not sent: the arguments again, likewise"),
        "messages[].tool_calls[].index": Mapped("not sent: a place in a stream"),
        "messages[].refusal": Mapped("`text`"),
        "messages[].annotations": Mapped("not sent: notes for a reader of the text"),
        "messages[].content[].text": Mapped("`text`"),
        "messages[].content[].refusal": Mapped("`text`"),
        "messages[].content[].image_url": Mapped("data: `inlineData`; https and gs URLs: `fileData`"),
        "messages[].content[].image_url (assistant)": Mapped("as the user's"),
        "messages[].content[].image_url (tool)": Mapped("`functionResponse.parts`"),
        "messages[].content[].image_url.detail": Mapped("`mediaResolution`; refused before Gemini 3"),
        "messages[].content[].file": Mapped("as an image, without its name"),
        "messages[].content[].file (assistant)": Mapped("as the user's"),
        "messages[].content[].file (tool)": Mapped("`functionResponse.parts`"),
        "messages[].content[].file.file_id": Unsupported(
            "the id is another service's; name a file of its own by its URI, as file_data"
        ),
        "messages[].content[].input_audio": Mapped("`inlineData`"),
        "messages[].content[].input_audio (assistant)": Mapped("as the user's"),
        "messages[].content[].input_audio (tool)": Mapped("`functionResponse.parts`"),
        "messages[].content[].cache_control": Mapped(AUTOMATIC_CACHING),
        "messages[].audio": Unsupported("it keeps nothing that it said aloud"),
        "messages[].function_call": Unsupported("use tool_calls"),
        "tools": Mapped(
            "`tools[].functionDeclarations`, with `parametersJsonSchema`; a schema without a type gets `type: object`"
        ),
        "tools[].function.strict": Mapped("mode `VALIDATED` for all tools; `ANY` holds to their schemas anyhow"),
        "tools[].cache_control": Mapped(AUTOMATIC_CACHING),
        "tool_choice": Mapped(
            "`toolConfig.functionCallingConfig`: `AUTO`, `NONE`, `ANY`, `allowedFunctionNames`; without "
            "tools not sent, `required` and a function refused"
        ),
        "parallel_tool_calls": Mapped("not sent: of several calls in an answer, `false` lets the first be told"),
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
        "user": Unsupported("it is told of no users"),
        "safety_identifier": Unsupported("it is told of no users"),
        "service_tier": Mapped("`auto`: nothing; `default`: `standard`; `flex` and `priority`: the same"),
        "stream": Mapped("another method: `streamGenerateContent`"),
        "stream_options": Mapped("`include_usage`: a last event tells the usage; `include_obfuscation`: refused"),
        "n": PassThrough("generationConfig.candidateCount"),
        "frequency_penalty": PassThrough("generationConfig.frequencyPenalty"),
        "presence_penalty": PassThrough("generationConfig.presencePenalty"),
        "logit_bias": Unsupported(allowed_values=("{}",)),
        "logprobs": PassThrough("generationConfig.responseLogprobs"),
        "top_logprobs": PassThrough("generationConfig.logprobs"),
        "seed": PassThrough("generationConfig.seed"),
        "modalities": Unsupported(
            "others stand in `google.generationConfig.responseModalities`", allowed_values=('["text"]',)
        ),
        "audio": Unsupported("its own words for that are `google.generationConfig.speechConfig`"),
        "prediction": Unsupported(),
        "verbosity": Unsupported(allowed_values=('"medium"',)),
        "metadata": Unsupported("it keeps none with an answer", allowed_values=("{}",)),
        "store": PassThrough("store", "whether Google logs it, whatever its project's setting"),
        "prompt_cache_key": Mapped(AUTOMATIC_CACHING),
        "prompt_cache_options": Unsupported("use `google.cachedContent`"),
        "prompt_cache_retention": Unsupported("use `google.cachedContent`", allowed_values=('"in_memory"',)),
        "moderation": Unsupported(),
        "web_search_options": Unsupported("its own tool for that stands in `google.tools`"),
    },
    accepts_blank_text=True,
)

# How the names of models before Gemini 3 begin: they are told how many tokens to reason with, younger ones at what
# level. https://ai.google.dev/gemini-api/docs/thinking
BEFORE_3 = ("gemini-1.", "gemini-2.", "gemini-robotics-er-1.")
# As Google's own OpenAI-compatible endpoint has them, which also says what cannot stop to reason: Gemini 2.5 Pro, and
# all since Gemini 3. https://ai.google.dev/gemini-api/docs/openai#thinking
BUDGETS = {"none": 0, "minimal": 1_024, "low": 1_024, "medium": 8_192, "high": 24_576}
ALWAYS_REASONS = "gemini-2.5-pro"
# https://github.com/googleapis/python-genai/blob/main/google/genai/types.py (ThinkingLevel); a model takes some only.
LEVELS = {"minimal": "MINIMAL", "low": "LOW", "medium": "MEDIUM", "high": "HIGH", "xhigh": "XHIGH"}

# Says that a call has no signature, which Gemini 3 and later refuse to read otherwise.
# https://ai.google.dev/gemini-api/docs/thought-signatures#faqs
NO_SIGNATURE = "skip_thought_signature_validator"

TIERS = {"auto": None, "default": "standard", "flex": "flex", "priority": "priority"}
# https://ai.google.dev/gemini-api/docs/media-resolution: for a part of its own since Gemini 3
DETAILS = {"low": "MEDIA_RESOLUTION_LOW", "high": "MEDIA_RESOLUTION_HIGH"}
# https://ai.google.dev/gemini-api/docs/audio#supported-formats
AUDIO_TYPES = {
    "wav": "audio/wav",
    "mp3": "audio/mp3",
    "aiff": "audio/aiff",
    "aac": "audio/aac",
    "ogg": "audio/ogg",
    "flac": "audio/flac",
}
# By the ending of a URL's path. https://ai.google.dev/gemini-api/docs/file-input-methods
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
EQUIVALENT_STOP_REASONS = ("STOP", "MAX_TOKENS")  # the others are told beside what OpenAI has for them
# Reasons to end that are failures, and the status that each stands for. What they mean is written in
# https://github.com/googleapis/python-genai/blob/main/google/genai/types.py (FinishReason)
FAILURES = {
    "MALFORMED_FUNCTION_CALL": 500,
    "UNEXPECTED_TOOL_CALL": 500,
    "TOO_MANY_TOOL_CALLS": 500,
    "MALFORMED_RESPONSE": 500,
    "MISSING_THOUGHT_SIGNATURE": 400,
    "PUP_LIMITED_DISABLED": 403,  # the account is
}
FAILURES_WITHOUT_CONTENT = {"OTHER": 500, "IMAGE_OTHER": 500, "NO_IMAGE": 500}  # where nothing was said before
