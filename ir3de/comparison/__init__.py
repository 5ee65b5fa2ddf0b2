"""Every router on the same data: fitted, frozen, scored on the same held-out sequences, timed and reported."""
