"""What others wrote, read without trust: JSON, arrays, pickles, places below a root.

Nothing here executes anything, opens a file that was not named, or asks for more memory than the file is worth.
Every fault is a ValueError that says what is wrong; whoever called knows the file and makes a HarnessError of it.
"""
