"""Breaks a running system on purpose, and checks that it keeps its promises."""
