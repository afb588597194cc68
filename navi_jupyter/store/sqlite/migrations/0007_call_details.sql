-- What the user sees of a call before they decide about it (a JSON list), whose tool it is, and the fingerprint of what
-- was described: what was shown is what is done.
ALTER TABLE interrupts ADD COLUMN source TEXT;
ALTER TABLE interrupts ADD COLUMN details TEXT;
ALTER TABLE interrupts ADD COLUMN fingerprint TEXT;
