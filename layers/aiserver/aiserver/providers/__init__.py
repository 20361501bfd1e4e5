"""Providers: configuration, calls, and one adapter for each protocol."""
