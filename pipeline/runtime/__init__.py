"""What every stage stands on: where parts live, how tasks run, what was built."""
