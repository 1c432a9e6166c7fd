"""Sweeps on a cluster: chunks run on Ray's nodes, and this process alone writes."""
