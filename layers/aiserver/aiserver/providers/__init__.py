"""The upstreams: what is configured of them, and one file for each protocol they speak."""
