"""SQL for the list of a user's sessions: pages of it, who may read them, and full-text search."""
