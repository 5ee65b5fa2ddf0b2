"""What runs in the rivals' environment."""
