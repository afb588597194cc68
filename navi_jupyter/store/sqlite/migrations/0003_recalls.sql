-- Notebook events and notifications.
ALTER TABLE firings ADD COLUMN detail TEXT;
ALTER TABLE firings ADD COLUMN attachments TEXT;
ALTER TABLE firings ADD COLUMN delivery TEXT NOT NULL DEFAULT 'none';
ALTER TABLE firings ADD COLUMN delivery_error TEXT;
CREATE UNIQUE INDEX firings_event ON firings (recall_id, key) WHERE kind = 'event';
-- Of what people are still to be told. `lease_until` of a firing that is over: not before, or taken until.
CREATE INDEX firings_to_tell ON firings (number) WHERE delivery = 'pending';
CREATE INDEX firings_by_slot ON firings (recall_id, slot);
-- What is to be watched, and what ends when the user comes.
CREATE INDEX recalls_when ON recalls (number)
    WHERE substr(schedule, 1, 14) = '{"kind":"when"' AND status IN ('pending', 'running');
-- Few: what waits for an event, and what the audit looks for.
CREATE INDEX recalls_without_slot ON recalls (number) WHERE status = 'pending' AND due_at IS NULL;
CREATE INDEX recalls_cancel_on ON recalls (session_id)
    WHERE instr(policy, '"cancel_on"') > 0 AND status IN ('pending', 'running', 'paused');

-- How far each user has seen each session: unread marks, and recalls that end when they are read.
CREATE TABLE reads (
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    user_id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (session_id, user_id)
) WITHOUT ROWID;

-- Unread marks: where in the log a run ended (its last event is not before it), and whether nobody followed then.
ALTER TABLE runs ADD COLUMN last_seq INTEGER;
ALTER TABLE runs ADD COLUMN unattended INTEGER NOT NULL DEFAULT 0;
CREATE TRIGGER runs_last_seq AFTER UPDATE OF ended_at ON runs
WHEN NEW.ended_at IS NOT NULL AND OLD.ended_at IS NULL AND NEW.started_at IS NOT NULL
BEGIN
    UPDATE runs SET last_seq = 1 + (SELECT head_seq FROM sessions WHERE id = NEW.session_id) WHERE number = NEW.number;
END;
CREATE INDEX runs_unread ON runs (session_id, last_seq) WHERE last_seq IS NOT NULL;

-- One row for each firing and each target that is to be told of it: apart from how the firing went.
CREATE TABLE notices (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    firing_id TEXT NOT NULL REFERENCES firings (id) ON DELETE CASCADE,
    owner TEXT NOT NULL,
    target TEXT NOT NULL,
    status TEXT NOT NULL DEFAULT 'pending',
    attempts INTEGER NOT NULL DEFAULT 0,
    -- Not before; while it is being sent: taken until.
    due_at INTEGER NOT NULL,
    -- Who takes care of it until then; only they may say what came of it.
    taken_by TEXT,
    -- Why it waited: it is then told together with the others that did.
    held TEXT,
    -- The message that told it; several have the same when that was a digest.
    message_id TEXT,
    ended_at INTEGER,
    error TEXT,
    UNIQUE (firing_id, target)
);
CREATE INDEX notices_due ON notices (due_at) WHERE status = 'pending';
CREATE INDEX notices_sent ON notices (owner, target, ended_at) WHERE status = 'sent';

-- What was missed while no server was there, gathered while it is caught up with, until it is told.
CREATE TABLE absences (
    session_id TEXT PRIMARY KEY REFERENCES sessions (id) ON DELETE CASCADE,
    since INTEGER NOT NULL,
    late INTEGER NOT NULL,
    missed INTEGER NOT NULL
) WITHOUT ROWID;
