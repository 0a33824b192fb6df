"""A Run: an agent and an environment that train, are saved, forked and measured."""
