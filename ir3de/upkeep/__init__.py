"""Changing and proving saved routers: experts are added, removed and merged, each change with a certificate."""
