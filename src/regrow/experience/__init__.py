"""Experience: replay buffers that agents add to and sample from."""
