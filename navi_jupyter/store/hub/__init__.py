"""SQL about a JupyterHub: the servers of its users that the service starts and stops."""
