"""What others wrote, read without trust: JSON, arrays, pickles, places below a root.

Nothing here executes anything, opens a file that was not named, or asks for more memory than the file is worth.
Every fault is a ValueError that says what is wrong; whoever called knows the file and makes a HarnessError of it.
"""

__all__ = ["Refused"]


class Refused(ValueError):
    """Not damage: something that no honest program writes, such as a pickle that names a function to call."""
