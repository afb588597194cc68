-- What is chosen of an agent program's modes and models in a session, and what the program offered last (the value of
-- the newest navi.agent_options in its log; NULL: none has run there).
ALTER TABLE sessions ADD COLUMN agent_options TEXT NOT NULL DEFAULT '{}';
ALTER TABLE sessions ADD COLUMN agent_offer TEXT;
