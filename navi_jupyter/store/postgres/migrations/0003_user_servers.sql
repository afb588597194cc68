-- Servers of a JupyterHub's users that the service is to start, has started, or stops; and which replica has runs that
-- use which of them.
CREATE TABLE user_servers (
    owner TEXT NOT NULL,
    server TEXT NOT NULL,
    state TEXT NOT NULL,
    wanted_at BIGINT NOT NULL,
    wanted_until BIGINT NOT NULL,
    not_before BIGINT NOT NULL DEFAULT 0,
    asked_at BIGINT,
    started TEXT,
    used_at BIGINT NOT NULL DEFAULT 0,
    look_at BIGINT NOT NULL DEFAULT 0,
    attempts BIGINT NOT NULL DEFAULT 0,
    failures BIGINT NOT NULL DEFAULT 0,
    failed_at BIGINT NOT NULL DEFAULT 0,
    refused BIGINT NOT NULL DEFAULT 0,
    reason TEXT NOT NULL DEFAULT '',
    replica TEXT NOT NULL DEFAULT '',
    lease_until BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (owner, server)
);
CREATE INDEX user_servers_queue ON user_servers (state, wanted_at);
CREATE TABLE user_server_uses (
    owner TEXT NOT NULL,
    server TEXT NOT NULL,
    replica TEXT NOT NULL,
    lease_until BIGINT NOT NULL,
    PRIMARY KEY (owner, server, replica)
);
