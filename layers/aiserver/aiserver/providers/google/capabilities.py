"""What Gemini's generateContent has words for, and what differs from model to model.

Source: https://ai.google.dev/api/generate-content
"""

from aiserver.providers.translation.capabilities import Passes, Refused, Translated, Words

CACHES_BY_ITSELF = "not sent: it caches by itself what requests begin with; `google.cachedContent` names a cache"

WORDS = Words(
    "Google Gemini",
    "google",
    {
        "model": Translated("stands in the path, as `models/…` where it is not a full name"),
        "messages": Translated(
            "`contents`; turns of one role after each other become one, one that says nothing is left out, "
            "and what tools answered stands apart"
        ),
        "messages[].role: system": Translated("`systemInstruction`, all of them, in order; wherever they stood"),
        "messages[].role: developer": Translated("as system"),
        "messages[].role: user": Translated("`user`"),
        "messages[].role: assistant": Translated("`model`"),
        "messages[].role: tool": Translated(
            "`functionResponse` in a turn of the user's: an object as it is, other text as `output`"
        ),
        "messages[].name": Translated("written before the text: `alice: …`; a tool's, where its call is not known"),
        "messages[].tool_calls": Translated("`functionCall`; an id that is empty or repeated becomes distinct"),
        "messages[].reasoning_content": Translated(
            "not sent: only reasoning with its signature is, which `google.parts` of the answer has"
        ),
        "messages[].reasoning": Translated("as reasoning_content"),
        "messages[].parsed": Translated("not sent: the content again, as OpenAI's client read it"),
        "messages[].tool_calls[].function.parsed_arguments": Translated("not sent: the arguments again, likewise"),
        "messages[].tool_calls[].index": Translated("not sent: a place in a stream"),
        "messages[].refusal": Translated("`text`"),
        "messages[].annotations": Translated("not sent: notes for a reader of the text"),
        "messages[].content[].text": Translated("`text`"),
        "messages[].content[].refusal": Translated("`text`"),
        "messages[].content[].image_url": Translated("data: `inlineData`; https and gs URLs: `fileData`"),
        "messages[].content[].image_url (assistant)": Translated("as the user's"),
        "messages[].content[].image_url (tool)": Translated("`functionResponse.parts`"),
        "messages[].content[].image_url.detail": Translated("`mediaResolution`; refused before Gemini 3"),
        "messages[].content[].file": Translated("as an image, without its name"),
        "messages[].content[].file (assistant)": Translated("as the user's"),
        "messages[].content[].file (tool)": Translated("`functionResponse.parts`"),
        "messages[].content[].file.file_id": Refused(
            "the id is another service's; name a file of its own by its URI, as file_data"
        ),
        "messages[].content[].input_audio": Translated("`inlineData`"),
        "messages[].content[].input_audio (assistant)": Translated("as the user's"),
        "messages[].content[].input_audio (tool)": Translated("`functionResponse.parts`"),
        "messages[].content[].cache_control": Translated(CACHES_BY_ITSELF),
        "messages[].audio": Refused("it keeps nothing that it said aloud"),
        "messages[].function_call": Refused("use tool_calls"),
        "tools": Translated(
            "`tools[].functionDeclarations`, with `parametersJsonSchema`; a schema without a type gets `type: object`"
        ),
        "tools[].function.strict": Translated("mode `VALIDATED` for all tools; `ANY` holds to their schemas anyhow"),
        "tools[].cache_control": Translated(CACHES_BY_ITSELF),
        "tool_choice": Translated(
            "`toolConfig.functionCallingConfig`: `AUTO`, `NONE`, `ANY`, `allowedFunctionNames`; without "
            "tools not sent, `required` and a function refused"
        ),
        "parallel_tool_calls": Translated("not sent: of several calls in an answer, `false` lets the first be told"),
        "functions": Refused("use tools"),
        "function_call": Refused("use tool_choice"),
        "response_format": Translated(
            "`json_schema`: `responseJsonSchema`, without its name; `json_object`: `responseMimeType`"
        ),
        "max_completion_tokens": Translated("`generationConfig.maxOutputTokens`"),
        "max_tokens": Translated("`generationConfig.maxOutputTokens`"),
        "temperature": Passes("generationConfig.temperature"),
        "top_p": Passes("generationConfig.topP"),
        "stop": Translated("`generationConfig.stopSequences`"),
        "reasoning_effort": Translated(
            "`thinkingConfig.thinkingLevel`; before Gemini 3 `thinkingConfig.thinkingBudget`"
        ),
        "user": Refused("it is told of no users"),
        "safety_identifier": Refused("it is told of no users"),
        "service_tier": Translated("`auto`: nothing; `default`: `standard`; `flex` and `priority`: the same"),
        "stream": Translated("another method: `streamGenerateContent`"),
        "stream_options": Translated("`include_usage`: a last event tells the usage; `include_obfuscation`: refused"),
        "n": Passes("generationConfig.candidateCount"),
        "frequency_penalty": Passes("generationConfig.frequencyPenalty"),
        "presence_penalty": Passes("generationConfig.presencePenalty"),
        "logit_bias": Refused(unless=("{}",)),
        "logprobs": Passes("generationConfig.responseLogprobs"),
        "top_logprobs": Passes("generationConfig.logprobs"),
        "seed": Passes("generationConfig.seed"),
        "modalities": Refused("others stand in `google.generationConfig.responseModalities`", unless=('["text"]',)),
        "audio": Refused("its own words for that are `google.generationConfig.speechConfig`"),
        "prediction": Refused(),
        "verbosity": Refused(unless=('"medium"',)),
        "metadata": Refused("it keeps none with an answer", unless=("{}",)),
        "store": Passes("store", "whether Google logs it, whatever its project's setting"),
        "prompt_cache_key": Translated(CACHES_BY_ITSELF),
        "prompt_cache_options": Refused("use `google.cachedContent`"),
        "prompt_cache_retention": Refused("use `google.cachedContent`", unless=('"in_memory"',)),
        "moderation": Refused(),
        "web_search_options": Refused("its own tool for that stands in `google.tools`"),
    },
    takes_white_space=True,
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
SOUNDS = {
    "wav": "audio/wav",
    "mp3": "audio/mp3",
    "aiff": "audio/aiff",
    "aac": "audio/aac",
    "ogg": "audio/ogg",
    "flac": "audio/flac",
}
# By the ending of a URL's path. https://ai.google.dev/gemini-api/docs/file-input-methods
MEDIA = SOUNDS | {
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

STOPS = {
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
OPENAI_SAYS_IT = ("STOP", "MAX_TOKENS")  # the others are told beside what OpenAI has for them
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
SILENT_FAILURES = {"OTHER": 500, "IMAGE_OTHER": 500, "NO_IMAGE": 500}  # where nothing was said before
