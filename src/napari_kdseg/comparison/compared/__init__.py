"""Masks of one slide that are compared, wherever they come from: each with a role, a name and a map of its classes."""
