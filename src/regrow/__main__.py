"""`python -m regrow` is `regrow`."""

from regrow.cli.entry import main

if __name__ == "__main__":
    main()
