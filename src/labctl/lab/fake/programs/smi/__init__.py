"""Stands in for nvidia-smi on hosts of the lab; ``main`` says how far it goes."""
