"""What runs on a host while labctl asks about its models or moves them; nothing of it stays there.

It is sent over the SSH connection that starts it, reads orders as JSON lines and answers so. It ends when its
input ends, or when it has heard nothing for a minute, and leaves only whole files and resumable parts.
Standard library only, for Python 3.9 and later.
"""
