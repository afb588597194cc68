-- What a recall's runs may do without asking (one name a line), and why it ended. A deleted session's recalls stay, as
-- cancelled ones with their ledger: the reference to it goes, for which SQLite wants the table to be made anew.
CREATE TABLE recalls_new (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    session_id TEXT NOT NULL,
    owner TEXT NOT NULL,
    title TEXT NOT NULL,
    message TEXT NOT NULL,
    schedule TEXT NOT NULL,
    policy TEXT NOT NULL,
    status TEXT NOT NULL,
    next_at INTEGER,
    last_at INTEGER,
    fired INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    origin TEXT NOT NULL,
    allow TEXT NOT NULL DEFAULT '',
    reason TEXT,
    -- What only the state machine knows.
    due_at INTEGER,
    planned INTEGER NOT NULL DEFAULT 0,
    outcome TEXT,
    version INTEGER NOT NULL DEFAULT 0
);
INSERT INTO recalls_new (number, id, session_id, owner, title, message, schedule, policy, status, next_at, last_at,
    fired, created_at, origin, due_at, planned, outcome, version)
SELECT number, id, session_id, owner, title, message, schedule, policy, status, next_at, last_at,
    fired, created_at, origin, due_at, planned, outcome, version FROM recalls ORDER BY number;
DROP TABLE recalls;
ALTER TABLE recalls_new RENAME TO recalls;
CREATE INDEX recalls_due ON recalls (due_at) WHERE due_at IS NOT NULL AND status IN ('pending', 'running');
CREATE INDEX recalls_by_owner ON recalls (owner, number);
CREATE INDEX recalls_by_session ON recalls (session_id, number);
CREATE INDEX recalls_open ON recalls (owner) WHERE status IN ('pending', 'running', 'paused');
CREATE INDEX recalls_when ON recalls (number)
    WHERE substr(schedule, 1, 14) = '{"kind":"when"' AND status IN ('pending', 'running');
CREATE INDEX recalls_without_slot ON recalls (number) WHERE status = 'pending' AND due_at IS NULL;
CREATE INDEX recalls_cancel_on ON recalls (session_id)
    WHERE instr(policy, '"cancel_on"') > 0 AND status IN ('pending', 'running', 'paused');
-- Questions and open firings of one session.
CREATE INDEX firings_of_session ON firings (session_id) WHERE status IN ('pending', 'claimed', 'running');
