"""English and cron text to schedules and back, for the routes, the tools and the offline backend."""
