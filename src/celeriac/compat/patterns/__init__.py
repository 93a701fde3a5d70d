"""The production patterns as Celery's users meet them: the options of a task, one pattern per file.

Each is a :class:`~celeriac.compat.patterns.pattern.Pattern`; :mod:`celeriac.compat.declaring` has the list.
"""
