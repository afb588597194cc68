"""Notices what happens in notebooks, kernels and files, for recalls that wait for it."""
