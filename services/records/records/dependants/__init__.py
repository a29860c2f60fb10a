"""Families of users, as append-only histories."""
