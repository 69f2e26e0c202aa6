"""What ``labctl bundle`` packs: the rack's own description, what is known of it, and no secret."""
