"""Who may do what at this moment, for the other processes."""
