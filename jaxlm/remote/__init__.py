"""Run folders and token shards in a bucket (gs://, s3://): a local mirror of small files, checkpoints in place."""
