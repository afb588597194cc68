"""Notebooks executed by themselves, for recalls: a kernel of their own, parameters, a dated copy of each run."""
