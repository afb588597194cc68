-- What a user has chosen for all sessions to come.
CREATE TABLE preferences (
    owner TEXT PRIMARY KEY,
    model TEXT NOT NULL
) WITHOUT ROWID;
