"""Choose, exactly and in bounded memory, the pairs that queries may keep."""
