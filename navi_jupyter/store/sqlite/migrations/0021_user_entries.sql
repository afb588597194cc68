-- What users have configured for themselves beside the files of the server, as JSON: profiles ('profile'), MCP servers
-- ('mcp'), notification targets ('notify').
CREATE TABLE user_entries (
    owner TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    entry TEXT NOT NULL,
    PRIMARY KEY (owner, kind, name)
);
