"""MLflow's REST API, as far as its clients and its servers share it: JSON, errors, connections."""
