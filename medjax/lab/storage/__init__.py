"""Folders of results: whole files, locks, checkpoints."""
