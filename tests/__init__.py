"""The product's tests; a package by name, since some distribution installs a `tests` of its own."""
