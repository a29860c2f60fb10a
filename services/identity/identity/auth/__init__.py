"""Tokens for users."""
