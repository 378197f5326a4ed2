"""Simulation of a fleet on a virtual clock, and the least energy that any schedule needs."""
