"""The laws over everything registered, and the bugs that show that they can fail."""
