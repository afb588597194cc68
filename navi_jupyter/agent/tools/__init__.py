"""The tools that an agent can call, and who may call them."""
