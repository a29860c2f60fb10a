"""Generated from protos/ by gateway/generate_schemas.py: never edit, run `make generate`."""
