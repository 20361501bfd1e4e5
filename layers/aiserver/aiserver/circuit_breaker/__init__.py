"""Circuit breaker: rules, shared state, and one breaker per container."""
