"""Networks that leave the building: run fast on CPUs."""
