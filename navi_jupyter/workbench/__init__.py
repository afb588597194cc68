"""The user's kernels, notebooks and files as tools reach them (``ports.workbench``), on Jupyter's own managers."""
