"""Vendors as their own servers speak, made of their own SDKs: neither side of a translation is our imagination."""
