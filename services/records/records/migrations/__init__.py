"""The steps that bring records's database to its present schema."""
