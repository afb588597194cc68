"""A kernel lent by a cell that waits: its agent has code executed in that cell."""
