"""Samples in memory and on disk."""

SPLITS = ("train", "validation", "test")
SPLIT_NAMES = {split: split for split in SPLITS} | {"valid": "validation", "val": "validation"}
"""The splits by the names that other projects give them."""
