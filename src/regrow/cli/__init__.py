"""The command line, one file per command."""

from regrow.cli.entry import main as main
from regrow.cli.entry import run as run
