"""What the gateway decides: whom it lets in, which host serves, and what a waiting client is told."""
