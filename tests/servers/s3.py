"""What the S3 servers share: an address, keys, and a plain client to prepare and check with."""

from __future__ import annotations

import itertools
from typing import Any, ClassVar

from tests.servers.base import HOST, Server

_SMALL = 2**20


class S3Server(Server):
    """A server that speaks S3 on `port`."""

    access_key: ClassVar[str] = "testaccesskey0000001"
    secret_key: ClassVar[str] = "testsecretkey0000000000000000000000000001"
    region: ClassVar[str] = "us-east-1"

    def __init__(self) -> None:
        super().__init__()
        self.port = 0
        self._buckets = itertools.count(1)
        self._client: Any = None

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def endpoint_url(self) -> str:
        return f"http://{self.address}"

    @property
    def environment(self) -> dict[str, str]:
        """MLflow's and Amazon's variables that lead a client here."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": self.region,
            "MLFLOW_S3_ENDPOINT_URL": self.endpoint_url,
        }

    @property
    def client(self) -> Any:
        """A botocore client: synchronous, for preparing and checking."""
        if self._client is None:
            import botocore.config
            import botocore.session

            self._client = botocore.session.Session().create_client(
                "s3",
                endpoint_url=self.endpoint_url,
                aws_access_key_id=self.access_key,
                aws_secret_access_key=self.secret_key,
                region_name=self.region,
                config=botocore.config.Config(
                    s3={"addressing_style": "path"},
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                    max_pool_connections=4,
                ),
            )
        return self._client

    def create_bucket(self) -> str:
        """Create an empty bucket and return its name."""
        bucket = f"test-bucket-{next(self._buckets)}"
        self.client.create_bucket(Bucket=bucket)
        return bucket

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        """All keys of a bucket below `prefix`, sorted."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return sorted(item["Key"] for page in pages for item in page.get("Contents", ()))

    def open_multipart_uploads(self, bucket: str) -> list[str]:
        """The keys of multipart uploads that were neither completed nor aborted."""
        pages = self.client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket)
        return [upload["Key"] for page in pages for upload in page.get("Uploads", ())]

    def discard(self, bucket: str, prefix: str = "") -> None:
        """Free the memory that a finished test holds in a bucket; small objects may stay."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        for item in [item for page in pages for item in page.get("Contents", ())]:
            if item["Size"] > _SMALL:
                self.client.delete_object(Bucket=bucket, Key=item["Key"])

    def stop(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
        super().stop()
