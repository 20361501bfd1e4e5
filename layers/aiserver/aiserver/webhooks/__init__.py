"""A POST to an address that a caller chose: where it may go, how it is signed, and what becomes of it."""
