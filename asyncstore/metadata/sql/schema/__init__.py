"""MLflow's database schema, kept as data: one snapshot file for each MLflow revision."""
