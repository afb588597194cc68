-- What the agent remembers about each user, and its full-text index.
CREATE TABLE facts (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    text TEXT NOT NULL,
    source TEXT NOT NULL,
    -- Where it was learned; it stays when that session is deleted.
    session_id TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
);
CREATE UNIQUE INDEX facts_by_text ON facts (owner, text);
CREATE INDEX facts_by_owner ON facts (owner, number);

CREATE VIRTUAL TABLE facts_text USING fts5 (
    text, content = 'facts', content_rowid = 'number', tokenize = 'unicode61 remove_diacritics 2', prefix = '2 3'
);
CREATE TRIGGER facts_added AFTER INSERT ON facts BEGIN
    INSERT INTO facts_text (rowid, text) VALUES (new.number, new.text);
END;
CREATE TRIGGER facts_removed AFTER DELETE ON facts BEGIN
    INSERT INTO facts_text (facts_text, rowid, text) VALUES ('delete', old.number, old.text);
END;
CREATE TRIGGER facts_changed AFTER UPDATE OF text ON facts BEGIN
    INSERT INTO facts_text (facts_text, rowid, text) VALUES ('delete', old.number, old.text);
    INSERT INTO facts_text (rowid, text) VALUES (new.number, new.text);
END;
