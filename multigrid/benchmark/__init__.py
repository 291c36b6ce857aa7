"""Measurements that anyone can rerun: ``python -m multigrid.benchmark SUITE``."""
