-- The answers that an agent program offers to its question (a JSON list), of which the user chooses one.
ALTER TABLE interrupts ADD COLUMN options TEXT;
