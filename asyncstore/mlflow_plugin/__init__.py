"""asyncstore inside MLflow: its plugins, over one background event loop."""
