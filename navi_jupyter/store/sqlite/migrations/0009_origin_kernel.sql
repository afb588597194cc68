-- The kernel that sent a run's prompt with the kernels' token; null where the user's page or program did.
ALTER TABLE runs ADD COLUMN origin_kernel TEXT;
