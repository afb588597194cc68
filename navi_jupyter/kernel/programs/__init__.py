"""Navi for programs outside of kernels: scripts, jobs, web back ends, commands of the shell."""
