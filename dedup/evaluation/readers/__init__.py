"""Read the pictures of evaluation sets as they lie: archives, shards, tables, raw pixels, caption lists."""
