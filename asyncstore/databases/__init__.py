"""From a database URI as MLflow writes it to an async engine, and what drivers raise."""
