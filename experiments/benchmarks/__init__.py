"""Measurements that anyone can rerun: ``python -m experiments.benchmarks SUITE``."""
