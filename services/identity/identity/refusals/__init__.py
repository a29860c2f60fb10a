"""Refused authentications and authorisations, kept for the audit log."""
