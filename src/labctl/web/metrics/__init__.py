"""The rack's numbers for Prometheus: what the controller says of every host, and what the checks found.

1. A scrape costs one ``status`` of the controller and one file. Nothing is connected to, no host is asked, no
   check is run: scraping wakes nothing, and a rack that sleeps is scraped as cheaply as one that works.
2. What is not known is not there. A host that does not report has a state and no watts; a controller that
   cannot be asked leaves ``labctl_controller_up 0`` and no states at all, never those of a while ago. So a
   series that ended means "not known", which is neither zero nor down.
3. Names and labels are a table (``families.FAMILIES``), and what is not in it cannot be put on the page.
   Labels are names of the rack file, modes, UUIDs, and names of models that a host has loaded: what a client
   or a process made up never becomes a label, nor does any text that is for people.
4. Counters are the controller's own, since it started; they begin anew with it, which rates bear.

``Metrics.page`` is called by whoever serves HTTP; it blocks for as long as the controller takes to answer, so
call it in a thread.
"""

from labctl.web.metrics.page import Metrics, Sources

__all__ = ["Metrics", "Sources"]
