"""A real drawing server on loopback, with OpenAI's protocol, and OCR that reads the prompts in its images."""
