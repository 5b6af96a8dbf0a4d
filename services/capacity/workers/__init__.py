"""The loops of capacity: they make the tables match the cluster, and the leases match the queue."""
