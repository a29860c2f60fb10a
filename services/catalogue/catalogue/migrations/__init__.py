"""The steps that bring the catalogue's database to its present schema."""
