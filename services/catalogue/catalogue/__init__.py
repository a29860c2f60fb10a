"""What users can use, and the businesses that give it: benefit providers and their benefits."""
