"""The API's requests and responses as one table, rendered as typed classes in eleven languages."""
