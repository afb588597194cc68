-- Servers of a JupyterHub's users that the service is to start, has started, or stops; and which replica has runs that
-- use which of them.
CREATE TABLE user_servers (
    owner TEXT NOT NULL,
    server TEXT NOT NULL,
    state TEXT NOT NULL,
    wanted_at INTEGER NOT NULL,
    wanted_until INTEGER NOT NULL,
    not_before INTEGER NOT NULL DEFAULT 0,
    asked_at INTEGER,
    started TEXT,
    used_at INTEGER NOT NULL DEFAULT 0,
    look_at INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0,
    failed_at INTEGER NOT NULL DEFAULT 0,
    refused INTEGER NOT NULL DEFAULT 0,
    reason TEXT NOT NULL DEFAULT '',
    replica TEXT NOT NULL DEFAULT '',
    lease_until INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (owner, server)
);
CREATE INDEX user_servers_queue ON user_servers (state, wanted_at);
CREATE TABLE user_server_uses (
    owner TEXT NOT NULL,
    server TEXT NOT NULL,
    replica TEXT NOT NULL,
    lease_until INTEGER NOT NULL,
    PRIMARY KEY (owner, server, replica)
);
