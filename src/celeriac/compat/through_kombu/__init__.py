"""The broker's contract over any transport of kombu's, for those that have no engine of their own."""
