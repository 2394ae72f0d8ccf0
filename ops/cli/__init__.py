"""The command ``bertstream``: options, output, exit codes.

No command imports what the platform runs on before it is called: a person waits for every import.
Begin with ``main.py``.
"""
