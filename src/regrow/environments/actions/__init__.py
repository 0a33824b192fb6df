"""What an environment is given for an action that an agent chose."""
