"""The chats, jobs, errors and images of the tests, with the Python client and the types of /types/python."""

import json
import os
import time

from dtos import (
    BackgroundJobState,
    GetOpenAiChatStatus,
    OpenAiChatCompletion,
    OpenAiChatResponse,
    OpenAiMessage,
    OpenAiToolFunction,
    OpenAiTools,
    QueueOpenAiChatCompletion,
    TextToImage,
)
from servicestack import JsonServiceClient, WebServiceException

url, key, elsewhere, ref_id = (os.environ[name] for name in ("URL", "KEY", "ELSEWHERE", "REF_ID"))
results = {}

# Quick start.
client = JsonServiceClient(url)
client.bearer_token = key
request = OpenAiChatCompletion(
    model="llama3:8b", messages=[OpenAiMessage(role="user", content="What's the capital of France?")], max_tokens=50
)
response = client.post_url("/v1/chat/completions", request, response_as=OpenAiChatResponse)
answer = response.choices[0].message.content

# The same by its name, and at another server.
results["chat"] = answer
results["api"] = client.post(request).choices[0].message.content
other = JsonServiceClient(elsewhere)
other.bearer_token = "other"
results["elsewhere"] = (
    other.post_url("/v1/chat/completions", request, response_as=OpenAiChatResponse).choices[0].message.content
)

# The same, as a job.
queued = client.post(QueueOpenAiChatCompletion(request=request, ref_id=ref_id))
results["refId"] = queued.ref_id
status = client.get(GetOpenAiChatStatus(ref_id=ref_id))
while status.job_state in (BackgroundJobState.QUEUED, BackgroundJobState.STARTED):
    time.sleep(0.05)
    status = client.get(GetOpenAiChatStatus(ref_id=ref_id))
results["state"] = status.job_state.value
results["result"] = status.result.choices[0].message.content

# An error.
try:
    client.post(OpenAiChatCompletion(model="llama3:8b"))
except WebServiceException as error:
    results["error"] = [error.response_status.error_code, error.response_status.message]

# A tool with a nested schema, and content in parts.
schema = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["a", "b"]}, "options": {"properties": {}}},
}
tool = OpenAiTools(type="function", function=OpenAiToolFunction(name="weather", parameters=schema))
parts = [
    {"type": "text", "text": "Describe"},
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
]
call = client.post(
    OpenAiChatCompletion(model="llama3:8b", messages=[OpenAiMessage(role="user", content=parts)], tools=[tool])
)
results["arguments"] = json.loads(call.choices[0].message.tool_calls[0].function.arguments)

# An image.
image = client.post(TextToImage(model="gpt-image-2", positive_prompt="A llama", width=512, height=512))
results["image"] = image.results[0].url
print(json.dumps(results))
