"""HTTP: what every service's application has in common."""
