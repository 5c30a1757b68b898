"""Records: what is stored of a trial, where, and how a leaderboard is read from it."""
