"""From a campaign file to a finished store and its reductions."""
