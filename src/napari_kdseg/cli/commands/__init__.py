"""The commands: each module adds those of one subject to the app."""
