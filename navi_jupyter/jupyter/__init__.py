"""The user's kernels, notebooks and files, reached on the server with every browser closed."""
