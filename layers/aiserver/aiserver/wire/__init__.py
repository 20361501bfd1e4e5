"""The JSON of the public API: parsing, editing, validation, rendering."""
