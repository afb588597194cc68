-- The list of a user's sessions: archived, deleted with a way back, shared to read, titled, and searched.
ALTER TABLE sessions ADD COLUMN archived_at INTEGER;
-- Until it is removed for good, a deleted session is there for nothing but its way back.
ALTER TABLE sessions ADD COLUMN deleted_at INTEGER;
-- Who made the title. One that no user has made (`default`) is replaced after the first exchange.
ALTER TABLE sessions ADD COLUMN title_source TEXT NOT NULL DEFAULT 'user';
CREATE INDEX sessions_untitled ON sessions (id) WHERE title_source = 'default';
CREATE INDEX sessions_deleted ON sessions (deleted_at) WHERE deleted_at IS NOT NULL;
-- The status of a recall that was cancelled with its session: what it has again when the session comes back.
ALTER TABLE recalls ADD COLUMN status_before TEXT;

-- Who may read a session besides its owner.
CREATE TABLE shares (
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    user_id TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (session_id, user_id)
) WITHOUT ROWID;
CREATE INDEX shares_by_user ON shares (user_id, session_id);

-- Full-text search over titles, prompts and answers. What is not in it yet is found by these marks, also in databases
-- of earlier versions: it is taken in afterwards, a few runs at a time.
ALTER TABLE sessions ADD COLUMN indexed_title TEXT;
CREATE INDEX sessions_to_index ON sessions (id) WHERE indexed_title IS NOT title;
ALTER TABLE runs ADD COLUMN indexed INTEGER NOT NULL DEFAULT 0;
CREATE INDEX runs_to_index ON runs (number) WHERE indexed = 0 AND ended_at IS NOT NULL;
CREATE TABLE message_texts (
    number INTEGER PRIMARY KEY,
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    run_id TEXT, -- NULL: the session's title
    message_id TEXT NOT NULL,
    role TEXT NOT NULL,
    at INTEGER NOT NULL
);
CREATE INDEX message_texts_by_session ON message_texts (session_id, run_id);
CREATE VIRTUAL TABLE message_index USING fts5 (text, tokenize = 'unicode61 remove_diacritics 2', prefix = '2 3');
CREATE TRIGGER message_texts_removed AFTER DELETE ON message_texts BEGIN
    DELETE FROM message_index WHERE rowid = old.number;
END;
