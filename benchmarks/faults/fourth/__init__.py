"""Programs that were written once the third ones had been looked at, by people who had not read the rules."""
