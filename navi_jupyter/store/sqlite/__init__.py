"""The store on one SQLite file: opened and checked, its files watched, its connections and their threads."""
