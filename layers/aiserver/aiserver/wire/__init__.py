"""The JSON callers see: how it is read, edited and written."""
