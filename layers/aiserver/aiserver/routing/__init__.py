"""Provider selection, admission and failover."""
