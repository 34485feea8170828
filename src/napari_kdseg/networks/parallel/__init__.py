"""Batches divided among processes, with the results of one process."""
