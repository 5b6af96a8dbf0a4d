"""Capacity: nodes, GPU leases and the queue for them."""
