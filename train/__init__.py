"""Train and evaluate contrastive image-text models from shards."""
