"""Tools for notebooks: what they read, what they change, and how their calls are described before they are made."""
