"""Jobs of explicit rows: read from a source, checked, and kept with the job in its store."""
