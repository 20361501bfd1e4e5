"""One adapter for each vendor protocol."""
