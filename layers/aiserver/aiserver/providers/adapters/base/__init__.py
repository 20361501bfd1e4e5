"""Adapters for vendors with a protocol of their own: the adapter contract, and code that the adapters share."""
