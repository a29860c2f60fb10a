"""The medical record numbers that link dependants to benefit providers."""
