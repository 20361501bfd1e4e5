"""Webhooks: the URL policy, signatures and delivery of callbacks to URLs chosen by callers."""
