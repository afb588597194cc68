"""Kernels: executing code, following IOPub, looking at variables."""
