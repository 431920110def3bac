"""From evidence to cause and remedy: readers make facts of documents, rules make causes of facts."""
