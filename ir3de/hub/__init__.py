"""What a config needs that is not here yet: what it is, how much, how to get it, and what a run will take."""
