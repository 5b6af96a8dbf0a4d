"""The verbs of auth: one transaction each, state and events together."""
