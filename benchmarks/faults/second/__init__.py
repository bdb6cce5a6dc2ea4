"""Programs that were written once the rules had been tuned on the first ones, by people who had not read the rules."""
