"""Where the layers meet: Protocols whose docstrings are their contracts, and the values they exchange."""
