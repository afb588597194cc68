-- What the agent's control over its work needs: questions to the user, prompts of several parts, costs.
ALTER TABLE sessions ADD COLUMN allowed_tools TEXT NOT NULL DEFAULT '[]';
ALTER TABLE sessions ADD COLUMN context TEXT NOT NULL DEFAULT '{}';

-- What a prompt is made of when it has attachments or was collected from several commands:
-- [{"command_id","text","display"?,"attachments":[...]}]; `prompt` is their text, joined.
ALTER TABLE runs ADD COLUMN parts TEXT;
ALTER TABLE runs ADD COLUMN mode TEXT NOT NULL DEFAULT 'enqueue';
ALTER TABLE runs ADD COLUMN merged_into TEXT;
ALTER TABLE runs ADD COLUMN rolled_back INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN cost REAL;
CREATE INDEX runs_by_user ON runs (user_id, created_at);

CREATE TABLE interrupts (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    run_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    message TEXT NOT NULL,
    tool_call_id TEXT,
    tool TEXT,
    args TEXT,
    response_schema TEXT,
    subagent_run_id TEXT,
    durable INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    status TEXT NOT NULL,
    payload TEXT,
    answered_by TEXT,
    answered_at INTEGER
);
CREATE INDEX interrupts_of_run ON interrupts (run_id, number);
CREATE INDEX interrupts_open ON interrupts (session_id, number) WHERE status = 'open';
CREATE INDEX interrupts_expiring ON interrupts (expires_at) WHERE status = 'open' AND expires_at IS NOT NULL;
