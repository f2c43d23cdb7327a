"""Measures of a network: PQ index (`pq`), information and gradient flow (`flow`), edge of chaos (`criticality`)."""
