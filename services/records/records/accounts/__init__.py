"""Where users' money goes."""
