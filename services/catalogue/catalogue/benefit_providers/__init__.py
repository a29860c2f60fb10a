"""Benefit providers."""
