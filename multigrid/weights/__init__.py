"""Weights: in files, and from one network to another."""
