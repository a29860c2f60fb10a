"""What happened to users, as identity tells it."""
