"""Asking many hosts at once what only they know, and telling them what cannot wait for an apply."""
