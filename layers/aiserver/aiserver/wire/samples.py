"""Sample payloads for test callbacks."""

CHAT_COMPLETION = (
    b'{"id":"chatcmpl-sample","object":"chat.completion","created":0,"model":"sample",'
    b'"choices":[{"index":0,"message":{"role":"assistant","content":"This is a sample; it does not belong to a job."},'
    b'"finish_reason":"stop"}],"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}}'
)
