-- Recalls and their ledger. Instants are integer microseconds since 1970, UTC.
CREATE TABLE recalls (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
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
    -- What only the state machine knows.
    due_at INTEGER,
    planned INTEGER NOT NULL DEFAULT 0,
    outcome TEXT,
    version INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX recalls_due ON recalls (due_at) WHERE due_at IS NOT NULL AND status IN ('pending', 'running');
CREATE INDEX recalls_by_owner ON recalls (owner, number);
CREATE INDEX recalls_by_session ON recalls (session_id, number);
CREATE INDEX recalls_open ON recalls (owner) WHERE status IN ('pending', 'running', 'paused');

-- The ledger: every slot ends as exactly one row, or is counted in `coalesced` of one.
CREATE TABLE firings (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    recall_id TEXT NOT NULL REFERENCES recalls (id) ON DELETE CASCADE,
    session_id TEXT NOT NULL,
    slot INTEGER NOT NULL,
    kind TEXT NOT NULL,
    key TEXT NOT NULL DEFAULT '',
    status TEXT NOT NULL,
    reason TEXT,
    command_id TEXT NOT NULL,
    run_id TEXT,
    attempt INTEGER NOT NULL DEFAULT 0,
    crashes INTEGER NOT NULL DEFAULT 0,
    coalesced INTEGER NOT NULL DEFAULT 0,
    not_before INTEGER NOT NULL,
    wait_until INTEGER,
    stop_at INTEGER,
    deferred INTEGER NOT NULL DEFAULT 0,
    started_at INTEGER,
    ended_at INTEGER,
    lateness_ms INTEGER,
    lease_owner TEXT,
    lease_until INTEGER,
    fence INTEGER NOT NULL DEFAULT 0
);
-- One row for each slot of a recall, and one for each manual firing.
CREATE UNIQUE INDEX firings_auto ON firings (recall_id, slot) WHERE kind = 'auto';
CREATE UNIQUE INDEX firings_manual ON firings (recall_id, key) WHERE kind = 'manual';
CREATE INDEX firings_pending ON firings (not_before) WHERE status = 'pending';
CREATE INDEX firings_held ON firings (status, lease_until) WHERE status IN ('claimed', 'running');
CREATE INDEX firings_open ON firings (recall_id) WHERE status IN ('pending', 'claimed', 'running');
CREATE INDEX firings_of_command ON firings (command_id);
CREATE INDEX firings_deferred ON firings (session_id, slot) WHERE status = 'pending' AND deferred = 1;
CREATE INDEX firings_limited ON firings (stop_at) WHERE status = 'running' AND stop_at IS NOT NULL;
