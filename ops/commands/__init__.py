"""Groups of commands that are clients of the control API.

None of them imports what the platform runs on: whoever types a command waits for its imports.
"""
