"""Platforms and their partner keys."""
