"""What records knows of users."""
