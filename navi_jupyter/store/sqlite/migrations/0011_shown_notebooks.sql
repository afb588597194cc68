-- What the page of a prompt showed of its notebook, until the run that answers the prompt has ended. In a table of its
-- own: it is large, and the queue is read often.
CREATE TABLE shown_notebooks (
    run_id TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    command_id TEXT NOT NULL,
    at INTEGER NOT NULL,
    notebook TEXT NOT NULL,
    PRIMARY KEY (run_id, command_id)
) WITHOUT ROWID;
-- With a run end those of the prompts that joined it.
CREATE INDEX runs_merged ON runs (merged_into) WHERE merged_into IS NOT NULL;
