"""Where the Subjects of a diagnosis come from."""
