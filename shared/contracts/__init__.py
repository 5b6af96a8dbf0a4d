"""What services and tools say to each other: events, RPC messages and the public vocabulary. No I/O, no rules."""
