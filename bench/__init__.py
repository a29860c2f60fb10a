"""How fast Aarokya is, beside what a user would write instead: ``make bench``."""
