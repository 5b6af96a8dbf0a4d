"""The verbs of capacity: one transaction each, state and events together."""
