"""Profiles: named agent configurations, and the context that they add to a prompt."""
