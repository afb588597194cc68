-- Sessions, their logs, commands and runs. Instants are integer microseconds since 1970, UTC.
CREATE TABLE sessions (
    id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    title TEXT NOT NULL,
    profile TEXT NOT NULL,
    model TEXT NOT NULL,
    notebook_path TEXT,
    kernel_id TEXT,
    timezone TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    head_seq INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX sessions_by_owner ON sessions (owner, updated_at DESC, id);

-- The log. `frame` is the envelope as it goes over the wire, encoded once.
CREATE TABLE events (
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    seq INTEGER NOT NULL,
    run_id TEXT,
    frame TEXT NOT NULL,
    PRIMARY KEY (session_id, seq)
) WITHOUT ROWID;

-- Accepted commands and the answers that were given: what makes a retry a no-op.
CREATE TABLE commands (
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    command_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    user_id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    run_id TEXT,
    PRIMARY KEY (session_id, command_id)
) WITHOUT ROWID;

CREATE TABLE runs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    command_id TEXT NOT NULL,
    status TEXT NOT NULL,
    origin_kind TEXT NOT NULL,
    recall_id TEXT,
    user_id TEXT NOT NULL,
    model TEXT NOT NULL,
    prompt TEXT NOT NULL,
    priority INTEGER NOT NULL DEFAULT 0,
    first_seq INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    started_at INTEGER,
    ended_at INTEGER,
    input_tokens INTEGER NOT NULL DEFAULT 0,
    output_tokens INTEGER NOT NULL DEFAULT 0,
    requests INTEGER NOT NULL DEFAULT 0,
    error_code TEXT,
    error_message TEXT,
    conversation BLOB,
    transcript TEXT,
    compacted INTEGER NOT NULL DEFAULT 0,
    server_id TEXT,
    lease_until INTEGER,
    stop_command_id TEXT
);
-- Never two at once in a session: a database fact, whichever server starts them.
CREATE UNIQUE INDEX runs_one_active ON runs (session_id) WHERE status IN ('running', 'waiting');
CREATE INDEX runs_open ON runs (status, session_id) WHERE status IN ('queued', 'running', 'waiting');
CREATE INDEX runs_by_session ON runs (session_id, number);
CREATE INDEX runs_to_compact ON runs (ended_at) WHERE compacted = 0 AND ended_at IS NOT NULL;

-- Who has this file open, so that what a dead server left open can be told from what a live one is doing.
CREATE TABLE servers (
    id TEXT PRIMARY KEY,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    pid_started REAL NOT NULL,
    lease_until INTEGER NOT NULL
);

-- Stretches of a log that were folded: a follower that stopped inside one can not go on event by event.
CREATE TABLE compactions (
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    from_seq INTEGER NOT NULL,
    to_seq INTEGER NOT NULL,
    PRIMARY KEY (session_id, from_seq)
) WITHOUT ROWID;
