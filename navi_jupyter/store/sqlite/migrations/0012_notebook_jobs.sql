-- A recall that executes a notebook: what it executes as JSON (null: its message is a prompt), and the dated copy that it
-- has made last.
ALTER TABLE recalls ADD COLUMN run TEXT;
ALTER TABLE recalls ADD COLUMN last_result TEXT;
CREATE INDEX recalls_notebooks ON recalls (number) WHERE run IS NOT NULL;
-- The dated copies of all runs, stored when each is begun, so that none is lost with its server.
CREATE TABLE results (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id TEXT NOT NULL UNIQUE,
    recall_id TEXT NOT NULL,
    path TEXT NOT NULL,
    created_at INTEGER NOT NULL
);
CREATE INDEX results_by_recall ON results (recall_id, number);
