"""Files written whole or not at all; folders that one process works in."""
