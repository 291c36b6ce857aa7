"""Samples in memory and on disk."""

SPLITS = ("train", "validation", "test")
