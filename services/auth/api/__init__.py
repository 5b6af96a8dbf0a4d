"""Auth's public endpoints."""
