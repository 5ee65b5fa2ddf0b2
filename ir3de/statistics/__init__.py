"""What is read from the data, as values that add: adding two is fitting on both (DESIGN.md 3.2)."""
