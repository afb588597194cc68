-- Whose clock a session's zone is of: chosen by the user, a browser's, a kernel's guess, or none that was named.
ALTER TABLE sessions ADD COLUMN timezone_source TEXT NOT NULL DEFAULT 'kernel';
UPDATE sessions SET timezone_source = 'default' WHERE timezone = 'UTC';
-- In which zone the prompt of a run is read, however late it starts; NULL: in its session's.
ALTER TABLE runs ADD COLUMN timezone TEXT;
