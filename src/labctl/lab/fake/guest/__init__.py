"""What a virtual machine of the lab runs besides Debian."""
