"""Programs that were written once the second ones had been looked at, by people who had not read the rules."""
