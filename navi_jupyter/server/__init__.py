"""The Jupyter server extension: builds everything, and is the only layer that sees all others."""
