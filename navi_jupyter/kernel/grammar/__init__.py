"""The grammar of `%navi` lines: commands, options and the structural forms of times."""
