-- How the notices of a user's targets went.
CREATE INDEX notices_by_owner ON notices (owner, target);
