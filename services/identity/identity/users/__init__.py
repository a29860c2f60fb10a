"""The workers of the platforms."""
