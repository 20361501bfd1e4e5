"""Real speech and transcription servers on loopback, with OpenAI's protocol."""
