"""Capacity: nodes, GPU leases and the line for them."""
