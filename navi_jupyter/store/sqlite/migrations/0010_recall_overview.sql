-- What ended on a day, over all sessions. Written once for each firing, at its end, in the order of time.
CREATE INDEX firings_ended ON firings (ended_at) WHERE ended_at IS NOT NULL;
