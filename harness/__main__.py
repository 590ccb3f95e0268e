"""`python -m harness` is the command `paretopose`."""

from harness.cli.main import main

main()
