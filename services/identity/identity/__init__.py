"""Who may call: platforms, their keys, their users and the tokens of those."""
