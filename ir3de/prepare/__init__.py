"""Raw text to token Parquet in the published layout: each source read once, resumable, the same bytes every time."""
