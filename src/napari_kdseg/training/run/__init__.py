"""One stage trained from its first epoch to its last, and what is kept of it."""
