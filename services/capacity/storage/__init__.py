"""Capacity's tables and every statement on them."""
