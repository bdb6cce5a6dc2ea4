"""Programs that were written once the fifth ones had been looked at, by people who had not read the rules."""
