"""One run of the agent through pydantic-ai."""
