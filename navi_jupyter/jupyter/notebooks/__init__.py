"""Notebooks: read and changed in the shared document or on disk."""
