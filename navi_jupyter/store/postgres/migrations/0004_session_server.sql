-- On a JupyterHub: which of its user's servers has the session's notebook and kernel; empty: the usual one.
ALTER TABLE sessions ADD COLUMN server TEXT NOT NULL DEFAULT '';
