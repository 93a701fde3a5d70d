"""Key-value stores: one module or package each, behind the contract of :mod:`celeriac.keyvalue`."""
