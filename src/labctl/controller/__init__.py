"""The process that wakes hosts and lets them sleep: observe, decide, act, and nothing in between.

``observe`` keeps a conversation with every host that talks and looks from outside at those that do not.
``loop`` asks ``domain.sleep.reconcile`` what should happen and hands each answer to ``act``, which writes
down what it is about to do, does it, and writes down how it went. ``leader`` sees to it that one process
of several acts. ``service`` is what the control API offers to people and programs.

Everything here fails toward awake: a store that cannot be read, an observation that is older than a tick,
a host that says what cannot be understood, all mean that nothing is put to sleep.
"""
