"""What is counted of requests, and the log with one line for each of them.

counts     counters and histograms, by model, host and key
text       the same as text for Prometheus
lines      the log, which never makes anybody wait
use        what an answer's last bytes say of its tokens
"""
