"""Numbers about a network: the PQ index (`pq`), what passes through it (`flow`), the edge of chaos (`criticality`)."""
