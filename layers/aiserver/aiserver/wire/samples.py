"""Answers nobody gave: what a receiver is sent to try it."""

CHAT_COMPLETION = (
    b'{"id":"chatcmpl-sample","object":"chat.completion","created":0,"model":"sample",'
    b'"choices":[{"index":0,"message":{"role":"assistant","content":"This is a sample: no job is behind it."},'
    b'"finish_reason":"stop"}],"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}}'
)
