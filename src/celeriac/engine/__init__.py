"""The engine: lease, run, settle.  Begin with :mod:`celeriac.engine.consumer`."""
