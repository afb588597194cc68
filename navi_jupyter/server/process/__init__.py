"""The process that the server shares with Jupyter and its other extensions: what is measured of it, its collections."""
