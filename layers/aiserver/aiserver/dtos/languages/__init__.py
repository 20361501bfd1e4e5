"""One module for each family of languages: templates only, the types come from the table."""
