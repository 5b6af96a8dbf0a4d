"""The loops of auth."""
