"""Numerical solvers of the PDEs, in numpy and scipy alone and batched over samples."""
