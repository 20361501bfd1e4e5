"""Vendors that do not speak OpenAI's protocol: what each must bring, and what they share."""
