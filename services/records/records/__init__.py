"""The records service: families, accounts and medical record numbers."""
