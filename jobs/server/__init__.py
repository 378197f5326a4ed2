"""Processes that run beside a store: here its HTTP API."""
