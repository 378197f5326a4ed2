"""The jobs of a store, for those who submit them: one core under command line, HTTP and Python."""
