-- Files that came with prompts or out of kernels. Their content lies beside the database, in attachments/.
CREATE TABLE attachments (
    id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    name TEXT NOT NULL,
    media_type TEXT NOT NULL,
    size INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    created_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX attachments_by_content ON attachments (owner, sha256);

-- Which sessions show it. One that none does any more is removed after a while.
CREATE TABLE attachment_uses (
    -- The columns of the key in its order: else quick_check of SQLite 3.40 sees NULLs where there are none.
    attachment_id TEXT NOT NULL REFERENCES attachments (id) ON DELETE CASCADE,
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    PRIMARY KEY (attachment_id, session_id)
) WITHOUT ROWID;
CREATE INDEX attachment_uses_of_session ON attachment_uses (session_id);
