"""A user's server on a JupyterHub that has ``navi hub``: what it is asked is sent there, for its user alone."""
