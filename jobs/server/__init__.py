"""Servers of the job service: what runs the jobs that the store holds, and their HTTP API."""
