"""An MLflow script on asyncstore: two URIs get a prefix, and nothing else changes.

    pip install asyncstore 'mlflow>=2.22'
    python examples/mlflow_on_asyncstore.py
    mlflow ui --backend-store-uri asyncstore+sqlite:///mlflow.db

For S3 install asyncstore[s3] and say asyncstore+s3://bucket/path; asyncstore+postgresql:// and the
other databases go likewise. The database and the files are MLflow's own in either case: without
the prefix, MLflow alone opens the same database. It opens the artifacts of an experiment that was
made with `asyncstore+file:` only where asyncstore is installed, because that URI is stored. With
ASYNCSTORE_MLFLOW_ARTIFACT_SCHEMES=file,s3 plain URIs are served by asyncstore, and what is stored
is plain.
"""

from __future__ import annotations

from pathlib import Path

import mlflow
from mlflow.models import infer_signature
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier

PREFIX = "asyncstore+"
EXPERIMENT = "digits"


def main(folder: Path, epochs: int = 20) -> str:
    """Train in a run whose database and artifacts are in a directory; returns the run's id."""
    mlflow.set_tracking_uri(f"{PREFIX}sqlite:///{folder}/mlflow.db")
    if mlflow.get_experiment_by_name(EXPERIMENT) is None:
        artifacts = (folder / "artifacts").as_uri()
        mlflow.create_experiment(EXPERIMENT, artifact_location=f"{PREFIX}{artifacts}")
    mlflow.set_experiment(EXPERIMENT)

    images, labels = load_digits(return_X_y=True)
    model = SGDClassifier(random_state=7)
    with mlflow.start_run() as run:
        mlflow.log_params({"epochs": epochs, "alpha": model.alpha})
        for epoch in range(epochs):
            model.partial_fit(images, labels, classes=range(10))
            # Returns at once: asyncstore's event loop logs it, in order, at the latest at exit.
            mlflow.log_metric(
                "accuracy", model.score(images, labels), step=epoch, synchronous=False
            )
        mlflow.log_dict(model.get_params(), "params.json")
        logged = mlflow.sklearn.log_model(
            model,
            "model",
            signature=infer_signature(images, labels),
            pip_requirements=["scikit-learn"],
        )
        mlflow.flush_async_logging()

    again = mlflow.sklearn.load_model(logged.model_uri)
    best = mlflow.search_runs(order_by=["metrics.accuracy DESC"], max_results=1).iloc[0]
    print(f"{again.predict(images[:10])}, best run {best.run_id}: {best['metrics.accuracy']:.3f}")
    return str(run.info.run_id)


if __name__ == "__main__":
    main(Path.cwd())
