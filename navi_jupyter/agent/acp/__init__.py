"""Agent programs (Agent Client Protocol) as backends, and the tools that they and other programs get from a run."""
