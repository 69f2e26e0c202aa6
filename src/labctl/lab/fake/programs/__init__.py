"""What runs *on* hosts of the lab in place of a vendor's programs: each module is copied there as it is.

So each is one file for Python 3.11 and later with the standard library alone, and imports nothing of labctl.
"""
