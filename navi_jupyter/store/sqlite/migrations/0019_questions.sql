-- The questions of a session that is removed, or read whole.
CREATE INDEX interrupts_by_session ON interrupts (session_id, number);
