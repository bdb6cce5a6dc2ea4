"""Programs that were written once the rules had been tuned on the second ones, too, by people who had not read the rules."""
