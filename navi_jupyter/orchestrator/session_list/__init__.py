"""The list of a user's sessions: titles, archive, deletion with a way back, forks, readers, search."""
