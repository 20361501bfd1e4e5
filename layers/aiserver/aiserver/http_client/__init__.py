"""HTTP transport with a total deadline; shared by providers and webhooks."""
