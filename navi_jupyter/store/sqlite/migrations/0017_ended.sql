-- What has ended and may have to be sent to webhooks: written by the very transaction that ends it, whichever server and
-- whichever path that is, and taken from here when it becomes notices.
CREATE TABLE ended (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    id TEXT NOT NULL
);
-- Not a prompt that was withdrawn before its run, nor one that joined another run.
CREATE TRIGGER runs_ended AFTER UPDATE OF ended_at ON runs
WHEN NEW.ended_at IS NOT NULL AND OLD.ended_at IS NULL AND NEW.started_at IS NOT NULL AND NEW.merged_into IS NULL
BEGIN
    INSERT INTO ended (kind, id) VALUES ('run', NEW.id);
END;
-- Not what the user cancelled, nor what a later firing stands for.
CREATE TRIGGER firings_ended AFTER UPDATE OF status ON firings
WHEN NEW.status IN ('succeeded', 'failed', 'skipped', 'missed', 'expired')
    AND OLD.status IN ('pending', 'claimed', 'running')
BEGIN
    INSERT INTO ended (kind, id) VALUES ('firing', NEW.id);
END;
CREATE TRIGGER firings_never_run AFTER INSERT ON firings
WHEN NEW.status IN ('skipped', 'missed', 'expired')
BEGIN
    INSERT INTO ended (kind, id) VALUES ('firing', NEW.id);
END;

-- A notice is of a firing or, for webhooks, of a run.
CREATE TABLE new_notices (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    firing_id TEXT REFERENCES firings (id) ON DELETE CASCADE,
    run_id TEXT REFERENCES runs (id) ON DELETE CASCADE,
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
    UNIQUE (firing_id, target),
    UNIQUE (run_id, target),
    CHECK ((firing_id IS NULL) <> (run_id IS NULL))
);
INSERT INTO new_notices (number, firing_id, owner, target, status, attempts, due_at, taken_by, held, message_id,
    ended_at, error)
    SELECT number, firing_id, owner, target, status, attempts, due_at, taken_by, held, message_id, ended_at, error
    FROM notices;
DROP TABLE notices;
ALTER TABLE new_notices RENAME TO notices;
CREATE INDEX notices_due ON notices (due_at) WHERE status = 'pending';
CREATE INDEX notices_sent ON notices (owner, target, ended_at) WHERE status = 'sent';
CREATE INDEX notices_waiting ON notices (target) WHERE status = 'pending';
