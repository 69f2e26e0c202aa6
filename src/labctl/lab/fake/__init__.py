"""Imitations of what the lab's hosts lack: graphics cards, their drivers, and the packages that bring those.

They sit where the real things sit (a shared library, sysfs, an apt repository), so that everything of labctl
and above, third-party programs included, runs unchanged. A fake behaves as the real thing does when it
refuses, is lost or forgets; what it does not know it says it does not have.
"""
