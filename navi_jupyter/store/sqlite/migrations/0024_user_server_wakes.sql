-- What users' servers of a JupyterHub that keep their own Navi have reported to `navi hub --wake-only`, and which replica
-- has a server started for its next recall.
CREATE TABLE user_server_wakes (
    owner TEXT NOT NULL,
    server TEXT NOT NULL,
    next_at INTEGER,
    busy_until INTEGER NOT NULL DEFAULT 0,
    in_use INTEGER NOT NULL DEFAULT 0,
    reported_at INTEGER NOT NULL DEFAULT 0,
    took INTEGER NOT NULL DEFAULT 0,
    not_before INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    replica TEXT NOT NULL DEFAULT '',
    lease_until INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (owner, server)
);
CREATE INDEX user_server_wakes_next ON user_server_wakes (next_at);
