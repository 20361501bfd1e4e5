"""OpenAI's protocol: responses, streams and errors."""
