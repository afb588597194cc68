"""The nouns: immutable values that every layer shares, on the wire and in the database."""
