"""A fleet on a virtual clock: what a scheduler would make of a day, and how little is possible."""
