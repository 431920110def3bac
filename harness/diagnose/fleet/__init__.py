"""Many bundles at once: streamed, judged on all cores, kept in SQLite, summed up."""
