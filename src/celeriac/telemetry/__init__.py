"""What the engine reports about itself: events on a bus, and what listens to them.  It observes and never decides.

::

    slot process                              supervisor process
    engine --emit--> Bus --> Relay --packets--> Receiver --> node Bus --> Metrics, EventLog, ...
                                              engine --emit--> Bus --^

``events`` are the values, ``bus`` carries them, ``relay`` takes them from a slot's process to the supervisor,
``tally`` adds up what is too frequent to be sent one by one, ``metrics`` and ``logs`` are listeners, ``http`` answers
``/metrics`` and, with ``health``, the probes.
"""
