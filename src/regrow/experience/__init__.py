"""Experience: what an agent remembers, added to and sampled from."""
