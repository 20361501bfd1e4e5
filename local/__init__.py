"""The embedded cloud: the deployed shape of this project on one machine, for `make dev`, `make demo` and the tests."""
