"""A SQLite database read for another one: all of it (``postgres.copying``), or what belongs to one user."""
