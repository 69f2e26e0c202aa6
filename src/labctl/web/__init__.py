"""What people and monitoring see of the rack in a browser: a process of its own beside the controller."""
