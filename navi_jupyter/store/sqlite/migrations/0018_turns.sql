-- The turns of a conversation in their order: its end is read without the rest, however long it is.
CREATE INDEX runs_turns ON runs (session_id, started_at, number) WHERE ended_at IS NOT NULL AND started_at IS NOT NULL;
