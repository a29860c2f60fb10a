"""The public routes, one file a domain."""
