"""The shapes of the JSON that the gateway takes and gives; see generate_schemas.py."""
