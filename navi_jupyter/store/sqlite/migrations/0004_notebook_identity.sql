-- A notebook is not its path: `notebook_path` is where the session's notebook was last seen. `notebook_link` is `linked`
-- (the notebook carries the session's id), `pending` (it does not yet) or `earlier` (it has another session now).
ALTER TABLE sessions ADD COLUMN notebook_link TEXT;
-- Marks of the notebook's cells, as JSON, by which it is known while it carries no id. NULL: not taken yet.
ALTER TABLE sessions ADD COLUMN fingerprint TEXT;
-- Where the notebook was that this session belonged to, once another notebook is there.
ALTER TABLE sessions ADD COLUMN earlier_path TEXT;
CREATE INDEX sessions_by_notebook ON sessions (notebook_path) WHERE notebook_path IS NOT NULL;
CREATE INDEX sessions_by_kernel ON sessions (kernel_id) WHERE kernel_id IS NOT NULL;
-- Until now the path was the identity, and the newest session with it was the notebook's.
UPDATE sessions SET notebook_link = 'earlier' WHERE notebook_path IS NOT NULL;
UPDATE sessions SET notebook_link = 'pending' WHERE notebook_path IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM sessions AS newer WHERE newer.owner = sessions.owner AND newer.notebook_path = sessions.notebook_path
    AND (newer.created_at, newer.id) > (sessions.created_at, sessions.id)
);
