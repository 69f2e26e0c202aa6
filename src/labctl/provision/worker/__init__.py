"""The worker: a short-lived child process that holds gevent and pyinfra and speaks JSON lines.

pyinfra keeps process-global state and gevent patches the whole interpreter, so neither may live in the
parent. pyinfra is used as a library of operations and facts; the prepare, plan and execute loop is ours:
hosts run independently of each other, facts travel in one stream per host, and nothing is evaluated twice
unless something has changed in between.
"""
