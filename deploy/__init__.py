"""Runs Aarokya: on one machine for `make run`, and in containers."""
