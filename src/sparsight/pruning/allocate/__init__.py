"""Ways to spend a budget, one file each: how many weights to keep, and where. Counts are exact."""
