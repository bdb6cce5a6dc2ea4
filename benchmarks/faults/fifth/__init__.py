"""Programs of the same time as the fourth ones, by other people who had not read the rules."""
