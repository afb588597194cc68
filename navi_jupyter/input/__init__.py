"""What comes from outside, read within bounds: JSON and text, schemas and patterns that somebody else wrote."""
