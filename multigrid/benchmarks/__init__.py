"""Measurements of parts of the project, each a command of its own."""
