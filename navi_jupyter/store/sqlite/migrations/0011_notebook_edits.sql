-- What runs have changed in notebooks, a row for each cell of a run: what it was before the run's first change and after
-- its last. A source that is null: the cell was not there. next: of a change that has begun and not ended.
CREATE TABLE notebook_edits (
    run_id TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    path TEXT NOT NULL,
    cell_id TEXT NOT NULL,
    own INTEGER NOT NULL,
    number INTEGER NOT NULL,
    kind TEXT NOT NULL,
    before TEXT,
    after TEXT,
    next TEXT,
    has_next INTEGER NOT NULL DEFAULT 0,
    place TEXT NOT NULL,
    outputs TEXT NOT NULL DEFAULT '[]',
    execution_count INTEGER,
    omitted INTEGER NOT NULL DEFAULT 0,
    state TEXT NOT NULL DEFAULT 'open',
    at INTEGER NOT NULL,
    PRIMARY KEY (run_id, path, cell_id)
) WITHOUT ROWID;
CREATE INDEX notebook_edits_by_age ON notebook_edits (at);
