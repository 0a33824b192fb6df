"""What SAC and DrQ share."""
