"""URIs of Amazon S3, Cloudflare R2 and Backblaze B2, as MLflow writes them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from asyncstore import uris
from asyncstore.errors import InvalidParameterError

__all__ = ["S3Location", "parse"]

FORMS = {
    "r2": "r2://bucket@account.r2.cloudflarestorage.com/path",
    "b2": "b2://bucket@s3.region.backblazeb2.com/path",
}
_BUCKET = re.compile(r"[A-Za-z0-9._-]+")
_B2_HOST = re.compile(r"s3\.([^.]+)\.backblazeb2\.com")


@dataclass(frozen=True)
class S3Location:
    """Where a root is, and what its URI says of the server.

    Args:
        root: Bucket and prefix, without a slash at the end.
        endpoint_url: None leaves it to MLFLOW_S3_ENDPOINT_URL.
        region: None leaves it to botocore.
        addressing_style: None leaves it to MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE.
    """

    root: str
    endpoint_url: str | None = None
    region: str | None = None
    addressing_style: str | None = None


def parse(uri: str) -> S3Location:
    """Take a URI apart.

    Args:
        uri: `s3://bucket/prefix`, `s3a://`; or one of `FORMS`, whose host is the endpoint, whatever
            the variables say, as in MLflow.

    Raises:
        InvalidParameterError: There is no bucket, the server is missing, or the path is not
            acceptable.
    """
    scheme = uris.scheme_of(uri)
    if scheme in FORMS:
        return _with_server(uri, scheme)
    bucket_and_prefix = uri.partition("://")[2]
    shown = uris.redact(uri)
    if "?" in bucket_and_prefix or "#" in bucket_and_prefix:
        raise InvalidParameterError(
            f"{shown}: an S3 URI has no '?' or '#'; write s3://bucket/prefix"
        )
    root = bucket_and_prefix.strip("/")
    if not root or bucket_and_prefix.startswith("/"):
        raise InvalidParameterError(f"{shown} names no bucket; write s3://bucket/prefix")
    if "@" in root.partition("/")[0]:
        raise InvalidParameterError(
            f"{shown}: credentials and a server have no place in an S3 URI; write s3://bucket/prefix"
        )
    return S3Location(uris.root_path(uri, root))


def _with_server(uri: str, scheme: str) -> S3Location:
    form = FORMS[scheme]
    location = uris.parse_location(uri, form, decode_path=False)
    shown = uris.redact(uri)
    if location.password is not None:
        raise InvalidParameterError(
            f"{shown}: before '@' stands the bucket alone; write {form}, with the keys in "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if not location.user or not _BUCKET.fullmatch(location.user):
        raise InvalidParameterError(f"{shown} names no bucket before '@'; write {form}")
    prefix = location.path.strip("/")
    port = f":{location.port}" if location.port else ""
    host = f"[{location.host}]" if ":" in location.host else location.host
    root = f"{location.user}/{prefix}" if prefix else location.user
    endpoint_url = f"https://{host}{port}"
    if scheme == "r2":
        # https://developers.cloudflare.com/r2/api/s3/api/: there is one region.
        return S3Location(root, endpoint_url, "auto", "virtual")
    found = _B2_HOST.fullmatch(location.host)
    return S3Location(root, endpoint_url, found[1] if found else None, "path")
