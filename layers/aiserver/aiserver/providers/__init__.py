"""Providers: configuration, HTTP transport, circuit breaker, and one adapter for each protocol."""
