-- What a database knows about itself, so that a missing or cut write-ahead log is noticed: one row.
CREATE TABLE database_state (
    number INTEGER PRIMARY KEY CHECK (number = 1),
    name TEXT NOT NULL, -- the record beside the file names the database that it is about
    committed_at INTEGER NOT NULL, -- microseconds since 1970 of the last commit; only grows
    in_use INTEGER NOT NULL -- whether no server has closed the database in order since then
);
INSERT INTO database_state (number, name, committed_at, in_use) VALUES (1, lower(hex(randomblob(16))), 0, 0);
